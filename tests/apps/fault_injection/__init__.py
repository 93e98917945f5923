"""Faults planted on purpose in a server, to see that the tests notice them."""
