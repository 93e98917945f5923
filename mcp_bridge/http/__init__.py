"""What every request to the ASGI application needs, before any decision."""
