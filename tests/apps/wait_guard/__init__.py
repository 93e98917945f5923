"""A guard that makes waiting inside a transaction an error."""
