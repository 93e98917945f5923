"""Health, readiness, OpenAPI and error responses."""
