"""Password hashing, validation and reset links."""
