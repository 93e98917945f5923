"""Admin pages of people: invitations and their roles."""
