"""Hosts of client documents in one spelling; a refusal wins where two become one."""

from __future__ import annotations

from typing import Any

from django.db import migrations

import accounts.hosts


def spelled(written: str) -> str:
    """The host in what somebody wrote; a URL or a port refused nothing before."""
    for text in (written.strip(), written.partition("://")[2], f"https://{written}"):
        for read in (accounts.hosts.canonical, accounts.hosts.host_of_document):
            try:
                return read(text)
            except ValueError:
                continue
    return ""


def one_spelling(apps: Any, schema_editor: Any) -> None:
    """What cannot be read stays: its page in the admin says what is wrong."""
    hosts = apps.get_model("accounts", "DocumentHost").objects
    for key, written, trusted in hosts.order_by("trusted").values_list(
        "pk", "host", "trusted"
    ):
        host = spelled(written)
        if host in ("", written):
            continue
        if hosts.filter(host=host).exists():
            if not trusted:
                hosts.filter(host=host).update(trusted=False)
            hosts.filter(pk=key).delete()
        else:
            hosts.filter(pk=key).update(host=host)


class Migration(migrations.Migration):
    dependencies = [("accounts", "0020_no_forms_of_attempts")]

    operations = [
        migrations.RunPython(one_spelling, migrations.RunPython.noop),
        migrations.AlterField(
            model_name="documenthost",
            name="host",
            field=accounts.hosts.HostField(
                help_text="As in claude.ai: no scheme, port or path.",
                max_length=255,
                unique=True,
                verbose_name="host",
            ),
        ),
    ]
