"""Tokens: signed, issued, refreshed, and turned into a Principal."""
