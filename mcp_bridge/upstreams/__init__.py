"""Other people's MCP servers: discovery, credentials, and the path of a call."""
