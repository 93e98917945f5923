"""Who may do what: users, roles, scopes, tokens, keys and the audit trail."""
