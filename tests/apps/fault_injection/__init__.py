"""Faults injected into a server to check that tests detect them."""
