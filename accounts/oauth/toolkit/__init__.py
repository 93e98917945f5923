"""The classes that django-oauth-toolkit's settings name."""
