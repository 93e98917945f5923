"""Channels of notifications, and the log of their deliveries."""
