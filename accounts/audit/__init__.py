"""Write, count and export audit events."""
