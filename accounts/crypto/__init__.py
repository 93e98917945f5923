"""Keys, encryption at rest and hashes of secrets: each in one place."""
