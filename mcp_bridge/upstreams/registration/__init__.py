"""Upstream servers are added, changed and removed: by forms, commands and files."""
