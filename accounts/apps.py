"""The app's start: SimpleJWT signs and verifies through our keys."""

from django.apps import AppConfig
from django.contrib.admin import apps as admin_apps
from django.db.models.signals import post_migrate
from django.utils.translation import gettext_lazy as _

from accounts.staff import fill_groups


class PorticoAdminConfig(admin_apps.AdminConfig):
    """django.contrib.admin with our site as `admin.site`."""

    default = False
    default_site = "accounts.site.PorticoSite"


class AccountsConfig(AppConfig):
    """Who may do what."""

    name = "accounts"
    verbose_name = _("Access")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Wire SimpleJWT's backend and the sign-in events, once models exist."""
        from rest_framework_simplejwt.tokens import Token

        from accounts import (  # noqa: F401
            checks,
            deletions,
            external,
            lockout,
            mail,
            secondfactor,
            sessions,
            signins,
        )
        from accounts.keyring import Keyring
        from accounts.oauth import documents

        Token._token_backend = Keyring()
        signins.connect()
        lockout.connect()
        secondfactor.connect()
        external.connect()
        mail.connect()
        deletions.connect()
        documents.install()
        sessions.install()
        post_migrate.connect(fill_groups, dispatch_uid="portico-groups")
