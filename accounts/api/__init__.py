"""The /api/token/ family on SimpleJWT's views, and the public keys."""
