"""Forget the forms, query strings and headers of failed sign-ins."""

from __future__ import annotations

from typing import Any

from django.db import migrations


def forget(apps: Any, schema_editor: Any) -> None:
    """The counts stay: they lock out."""
    attempts = apps.get_model("axes", "AccessAttempt").objects
    attempts.update(get_data="", post_data="", http_accept="")


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0019_session_epoch"),
        ("axes", "0010_accessattemptexpiration"),
    ]

    operations = [migrations.RunPython(forget, migrations.RunPython.noop)]
