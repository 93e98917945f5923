"""The conformance suite's "everything" server, as an app (EXTRA_APPS)."""
