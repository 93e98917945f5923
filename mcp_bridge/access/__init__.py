"""The decision on a message: its target, the rules, the reasons, the explanation."""
