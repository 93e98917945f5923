"""Call events and last uses of tokens, written in batches."""
