"""Users and policy from files: problems, plan, changes."""
