"""The scopes, roles and staff groups of a new installation, and its audit head."""

import hashlib
import hmac

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings
from django.db import migrations

SCOPES = {
    "mcp": "Use the tools that your roles allow.",
    "Admin.Write": "Manage users, roles and tokens.",
    "User.Write": "Change data.",
    "User.Read": "Read data.",
    "Guest.Read": "Read public data.",
}
ROLES = {
    "Admin": (
        "Full access, including administration.",
        ("Admin.Write", "User.Write", "User.Read", "Guest.Read"),
    ),
    "User": ("Read and change data.", ("User.Write", "User.Read", "Guest.Read")),
    "Guest": ("Read public data.", ("Guest.Read",)),
}
GROUPS = ("Auditors", "Helpdesk", "Role managers")
"""Filled after every migrate, once the permissions exist (accounts/authorization/staff_groups.py)."""


def add(apps, schema_editor):
    scope_model = apps.get_model("accounts", "Scope")
    role_model = apps.get_model("accounts", "Role")
    scopes = {
        name: scope_model.objects.create(name=name, description=description)
        for name, description in SCOPES.items()
    }
    for name, (description, names) in ROLES.items():
        role = role_model.objects.create(name=name, description=description)
        role.scopes.set([scopes[scope] for scope in names])
    for name in GROUPS:
        apps.get_model("auth", "Group").objects.get_or_create(name=name)


def add_audit_head(apps, schema_editor):
    """The row that names the newest seal: none yet. Its MAC is that of the model."""
    hkdf = HKDF(hashes.SHA256(), 32, salt=None, info=b"portico audit seals v1")
    key = hkdf.derive(settings.KEY_ENCRYPTION_KEY.encode())
    mac = hmac.new(key, b'["head",0,""]', hashlib.sha256).hexdigest()
    apps.get_model("accounts", "AuditHead").objects.create(number=0, digest="", mac=mac)


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0001_initial"),
        ("auth", "0012_alter_user_first_name_max_length"),
    ]
    operations = [
        migrations.RunPython(add, migrations.RunPython.noop),
        migrations.RunPython(add_audit_head, migrations.RunPython.noop),
    ]
