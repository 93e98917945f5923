"""The app's start: SimpleJWT signs and verifies through our keys."""

from django.apps import AppConfig


class AccountsConfig(AppConfig):
    """Who may do what."""

    name = "accounts"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Wire SimpleJWT's backend and the sign-in events, once models exist."""
        from rest_framework_simplejwt.tokens import Token

        from accounts import checks, lockout, signins  # noqa: F401
        from accounts.keyring import Keyring
        from accounts.oauth import documents

        Token._token_backend = Keyring()
        signins.connect()
        lockout.connect()
        documents.install()
