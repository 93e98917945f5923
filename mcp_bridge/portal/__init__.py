"""Portal pages about MCP."""
