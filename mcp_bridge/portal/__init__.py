"""Portal pages that know of MCP."""
