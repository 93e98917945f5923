"""Where pages are in the admin: the groups of the navigation and the breadcrumbs."""
