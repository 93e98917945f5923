"""Database triggers that number every change a decision depends on."""
