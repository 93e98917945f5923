"""The admin site itself, and what its pages have in common."""
