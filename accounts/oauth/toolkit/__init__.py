"""Classes and functions named in django-oauth-toolkit's settings."""
