"""Signing, issuing, refreshing and authenticating tokens."""
