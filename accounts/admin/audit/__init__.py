"""Admin pages of the audit."""
