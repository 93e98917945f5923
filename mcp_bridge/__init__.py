"""The asynchronous side: the door at /mcp and the decision on every message."""
