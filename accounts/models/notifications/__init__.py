"""Channels, the outbox of notifications, and the checks that fail."""
