"""The OAuth 2.1 authorization server: everything that adapts django-oauth-toolkit."""
