"""Filters of lists with typed input, and what they have in common."""
