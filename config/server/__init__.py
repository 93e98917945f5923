"""What the server process needs around the application."""
