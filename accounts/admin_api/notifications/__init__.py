"""Notification channels and their deliveries at /api/v1/."""
