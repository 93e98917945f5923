"""One module per peer: `app` is ASGI, and `python -m` prints a token for it."""
