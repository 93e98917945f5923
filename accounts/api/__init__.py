"""The /api/token/ endpoints on SimpleJWT's views, and the JWK Set."""
