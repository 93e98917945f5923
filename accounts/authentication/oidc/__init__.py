"""Sign-in with OpenID Connect providers."""
