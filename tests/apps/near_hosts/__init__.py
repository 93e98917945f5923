"""For servers under test: hosts of client documents may be on this machine."""
