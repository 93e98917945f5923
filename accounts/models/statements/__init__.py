"""SQL of a sign-in and of a refresh, which Django writes once."""
