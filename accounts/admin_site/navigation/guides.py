"""Which section of the guides at /help/ explains a page of the admin."""

from __future__ import annotations

from accounts.http.help.links import guide_url

ADMIN = "administration"
PLACES = {
    "": f"{ADMIN}#The dashboard",
    "access/": f"{ADMIN}#Roles and tools in one table",
    "access/check/": f"{ADMIN}#Why was Ana refused? Who can call this?",
    "accounts/": f"{ADMIN}#Where things are",
    "accounts/accessrequest/": "start-team-lead#Daily tasks",
    "accounts/auditevent/": f"{ADMIN}#The audit",
    "accounts/auditseal/": f"{ADMIN}#Seals: detecting changes to the audit",
    "accounts/delivery/": "notifications#Delivery",
    "accounts/documentcopy/": "connecting#Servers without internet access",
    "accounts/documenthost/": "connecting#Servers without internet access",
    "accounts/invitation/": f"{ADMIN}#Inviting people",
    "accounts/issuedtoken/": f"{ADMIN}#Tokens",
    "accounts/notificationchannel/": "notifications#Set up a channel",
    "accounts/oauthclient/": "connecting#Clients that an administrator registers",
    "accounts/revokedtoken/": f"{ADMIN}#Tokens",
    "accounts/role/": f"{ADMIN}#Roles and tools in one table",
    "accounts/roleassignment/": f"{ADMIN}#Roles with an end date",
    "accounts/user/": f"{ADMIN}#The page of a person",
    "definitions/": "upstreams#Five minutes",
    "mcp_bridge/primitive/": "adding-tools",
    "mcp_bridge/upstreamserver/": "upstreams",
    "policy/": f"{ADMIN}#Policy file",
    "search/": f"{ADMIN}#Search",
    "users/end-access/": f"{ADMIN}#Ending all access of a person",
    "users/import/": f"{ADMIN}#Users from a file",
    "users/invite/": f"{ADMIN}#Inviting people",
}
"""Beginning of the path below /admin/ -> guide, or guide#Title of a section."""


def guide_at(path: str) -> str:
    """The URL for the page at `path` below /admin/; empty without documentation."""
    above = (beginning for beginning in PLACES if path.startswith(beginning))
    found = max(above, key=len)
    # Pages that have no section of their own are listed in the first one.
    here = PLACES[found or ("accounts/" if path else "")]
    return guide_url(here)
