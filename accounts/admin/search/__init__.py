"""What the search of the admin finds in the tables of accounts."""
