"""How OAuth clients register and prove who they are."""
