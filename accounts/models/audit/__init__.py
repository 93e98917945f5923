"""Rows of the audit: events, seals, hourly counts, saved views."""
