"""The models of accounts, one file for each noun."""

from accounts.models.access_requests import AccessRequest
from accounts.models.audit.events import AuditEvent
from accounts.models.audit.heads import AuditHead
from accounts.models.audit.rollups import AuditHour
from accounts.models.audit.saved_views import SavedView
from accounts.models.audit.seals import AuditSeal
from accounts.models.documents.copies import DocumentCopy
from accounts.models.identity_providers import ClaimRule, SignInProvider
from accounts.models.import_drafts import ImportDraft
from accounts.models.issued_tokens import IssuedToken, IssuedVia, TokenKind
from accounts.models.notifications.audit_feeds import AuditFeed
from accounts.models.notifications.channels import NotificationChannel
from accounts.models.notifications.deliveries import Delivery
from accounts.models.notifications.failing_checks import FailingCheck
from accounts.models.oauth import (
    Consent,
    DocumentHost,
    OAuthAccessToken,
    OAuthClient,
    OAuthDeviceGrant,
    OAuthGrant,
    OAuthIDToken,
    OAuthRefreshToken,
    UsedAssertion,
)
from accounts.models.onboarding.invitations import Invitation
from accounts.models.revoked_tokens import RevokedToken
from accounts.models.roles import Role, RoleAssignment, Scope
from accounts.models.signing_keys import SigningKey
from accounts.models.users import User

__all__ = [
    "AccessRequest",
    "AuditEvent",
    "AuditFeed",
    "AuditHead",
    "AuditHour",
    "AuditSeal",
    "ClaimRule",
    "Consent",
    "Delivery",
    "DocumentCopy",
    "DocumentHost",
    "IssuedVia",
    "FailingCheck",
    "ImportDraft",
    "Invitation",
    "IssuedToken",
    "NotificationChannel",
    "OAuthAccessToken",
    "OAuthClient",
    "OAuthDeviceGrant",
    "OAuthGrant",
    "OAuthIDToken",
    "OAuthRefreshToken",
    "RevokedToken",
    "Role",
    "RoleAssignment",
    "SavedView",
    "Scope",
    "SignInProvider",
    "SigningKey",
    "TokenKind",
    "UsedAssertion",
    "User",
]
