"""Per-worker caches of principals and rules, invalidated by the change log."""
