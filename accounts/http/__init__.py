"""What every HTTP request and answer needs, whatever it is about."""
