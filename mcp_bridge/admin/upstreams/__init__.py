"""Upstream servers in the admin: list, form with a look, review of definitions."""
