"""One module per peer: an ASGI `app`, and `python -m` prints a token for it."""
