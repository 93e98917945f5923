"""Timeouts, logging, tracing and worker settings of the server process."""
