"""The MCP server behind /mcp, and the decision on every message."""
