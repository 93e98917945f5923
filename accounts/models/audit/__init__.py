"""Models of the audit: events, seals, hourly counts and saved views."""
