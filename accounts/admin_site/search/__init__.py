"""The search of the admin: one box for people, tools, clients, tokens and pages."""
