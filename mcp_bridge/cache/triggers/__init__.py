"""Database triggers that log and number every change that decisions depend on."""
