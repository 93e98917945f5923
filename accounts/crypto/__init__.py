"""Signing keys, encryption at rest and hashes of secrets."""
