"""The rows that decide, one noun a file."""

from accounts.models.audit import AuditEvent
from accounts.models.drafts import ImportDraft
from accounts.models.heads import AuditHead
from accounts.models.hours import AuditHour
from accounts.models.keys import SigningKey
from accounts.models.providers import ClaimRule, SignInProvider
from accounts.models.requests import AccessRequest
from accounts.models.revocation import RevokedToken
from accounts.models.roles import Role, RoleAssignment, Scope
from accounts.models.savedviews import SavedView
from accounts.models.seals import AuditSeal
from accounts.models.tokens import Door, IssuedToken, TokenKind
from accounts.models.users import User
from accounts.oauth.models import (
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

__all__ = [
    "AccessRequest",
    "AuditEvent",
    "AuditHead",
    "AuditHour",
    "AuditSeal",
    "ClaimRule",
    "Consent",
    "DocumentHost",
    "Door",
    "ImportDraft",
    "IssuedToken",
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
