"""Mail addresses in lower case, and whether an administrator set them."""

from __future__ import annotations

from typing import Any

from django.db import migrations, models

import accounts.models.users


def lower_case(apps: Any, schema_editor: Any) -> None:
    """One spelling of an address."""
    users = apps.get_model("accounts", "User").objects
    for key, address in users.exclude(email="").values_list("pk", "email"):
        if address != address.lower():
            users.filter(pk=key).update(email=address.lower())


def distrust(apps: Any, schema_editor: Any) -> None:
    """Addresses that people or providers wrote are not an administrator's.

    allauth kept a row of each. The rows go: nothing may look accounts up by them.
    """
    addresses = apps.get_model("account", "EmailAddress").objects
    for user, address in addresses.values_list("user_id", "email").order_by():
        own = apps.get_model("accounts", "User").objects.filter(pk=user)
        own.filter(email=address.lower()).update(email_set_by_admin=False)
    addresses.all().delete()


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0016_hashed_session_keys"),
        ("account", "0009_emailaddress_unique_primary_email"),
    ]

    operations = [
        migrations.AddField(
            model_name="user",
            name="email_set_by_admin",
            field=models.BooleanField(
                default=True,
                help_text=(
                    "Off: a sign-in provider said it. A sign-in provider links only "
                    "accounts whose address an administrator set."
                ),
                verbose_name="address set by an administrator",
            ),
        ),
        migrations.AlterField(
            model_name="user",
            name="email",
            field=accounts.models.users.AddressField(
                blank=True, max_length=254, verbose_name="email address"
            ),
        ),
        migrations.RunPython(lower_case, migrations.RunPython.noop),
        migrations.RunPython(distrust, migrations.RunPython.noop),
    ]
