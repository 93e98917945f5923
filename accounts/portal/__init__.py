"""Self-service pages of signed-in people: connected apps and personal tokens."""
