"""Parts that every HTTP request and response needs."""
