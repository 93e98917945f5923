"""Sign-in with passwords, second factors and identity providers."""
