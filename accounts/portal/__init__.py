"""Self-service pages of signed-in users."""
