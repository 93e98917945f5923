"""Invitations and access requests at /api/v1/."""
