"""Headers of every response: caching and the permissions policy."""
