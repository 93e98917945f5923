"""A guard for tests: what waits for others inside a transaction fails."""
