"""/api/v1/: the administration API. It uses the forms and actions of the admin."""
