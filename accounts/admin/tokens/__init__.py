"""Admin pages of tokens, signing keys and OAuth clients."""
