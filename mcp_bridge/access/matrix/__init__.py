"""The access matrix: its cells, what replaces a shared scope, and how it is saved."""
