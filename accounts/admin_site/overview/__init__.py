"""Parts of the overview, the first page of the admin."""
