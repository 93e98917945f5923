"""Django admin pages, one module for each subject."""

from accounts.admin import (
    access_requests,
    allauth,
    failed_logins,
    identity_providers,
    notices,
    role_assignments,
    roles,
    system,
    user_import,
    users,
)
from accounts.admin.audit import events, seals
from accounts.admin.notifications import channels, deliveries
from accounts.admin.people import end_access, first_steps, invitations, role_changes
from accounts.admin.search import kinds_of_rows
from accounts.admin.tokens import (
    document_copies,
    issued_tokens,
    oauth_clients,
    revoked_tokens,
    signing_keys,
)
from accounts.admin_site import uploads
from accounts.admin_site.search import pages, view

__all__ = [
    "allauth",
    "events",
    "seals",
    "channels",
    "deliveries",
    "document_copies",
    "oauth_clients",
    "role_assignments",
    "signing_keys",
    "failed_logins",
    "identity_providers",
    "end_access",
    "first_steps",
    "invitations",
    "role_changes",
    "notices",
    "access_requests",
    "revoked_tokens",
    "roles",
    "system",
    "issued_tokens",
    "user_import",
    "kinds_of_rows",
    "pages",
    "uploads",
    "view",
    "users",
]
