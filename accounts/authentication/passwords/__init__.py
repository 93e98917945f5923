"""Passwords: hashed, judged, reset by mail."""
