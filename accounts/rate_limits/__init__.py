"""Rate limits: windows, the shared store, and the middleware that counts."""
