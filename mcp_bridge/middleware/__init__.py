"""ASGI middleware around /mcp and Django."""
