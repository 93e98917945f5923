"""Writing, counting and exporting audit events."""
