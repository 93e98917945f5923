"""An app with one primitive of each kind and need, for the flow tests."""

STARTED = "a slow tool runs"
"""Printed when a slow tool starts, so that a test can wait for it."""
