"""Who may do what: roles, scopes and delegated administration."""
