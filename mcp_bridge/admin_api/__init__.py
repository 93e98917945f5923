"""Tools and upstream servers at /api/v1/."""
