"""The decision on a message: what it asks for, the rules, the reasons."""
