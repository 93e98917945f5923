"""App configuration: SimpleJWT's backend, signal handlers, the admin site."""

from django.apps import AppConfig
from django.contrib.admin import apps as admin_apps
from django.db.models.signals import post_migrate
from django.utils.translation import gettext_lazy as _

from accounts.authorization.staff_groups import fill_staff_groups


class PorticoAdminConfig(admin_apps.AdminConfig):
    default = False
    default_site = "accounts.admin_site.site.PorticoSite"


class AccountsConfig(AppConfig):
    name = "accounts"
    verbose_name = _("Access")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Import late: models are not loaded before."""
        from rest_framework_simplejwt.tokens import Token

        from accounts.authentication import lockout, mail, mfa, signals
        from accounts.authentication.oidc import adapter
        from accounts.authorization import deletions
        from accounts.http import session_store
        from accounts.oauth.clients import document_copies, document_fetcher
        from accounts.tokens.jwts import SigningKeyBackend

        Token._token_backend = SigningKeyBackend()
        signals.connect_sign_in_audit()
        lockout.connect_lockout_audit()
        mfa.connect_mfa_audit()
        adapter.connect_claims()
        mail.connect_mail()
        deletions.connect_deletions()
        document_fetcher.install_document_rules()
        session_store.install_session_hashing()
        post_migrate.connect(fill_staff_groups, dispatch_uid="portico-groups")
        post_migrate.connect(
            document_copies.add_shipped_copies,
            sender=self,
            dispatch_uid="portico-document-copies",
        )
