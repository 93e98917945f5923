"""Roles, scopes and delegated administration."""
