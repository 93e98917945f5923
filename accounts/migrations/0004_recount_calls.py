"""Counts tool calls and their errors: hours counted before lack them."""

from django.db import migrations, models


def recount(apps, schema_editor):
    """Pages and `purge` count the hours again from their events."""
    apps.get_model("accounts", "AuditHour").objects.all().delete()


class Migration(migrations.Migration):
    dependencies = [("accounts", "0003_audit_subject")]

    operations = [
        migrations.AlterField(
            model_name="audithour",
            name="facet",
            field=models.CharField(
                choices=[
                    ("messages", "messages decided"),
                    ("action", "events by action"),
                    ("object", "messages by target"),
                    ("calls", "tool calls"),
                    ("errors", "failed tool calls"),
                    ("actor", "tool calls and denials by user"),
                    ("client", "tool calls and denials by client"),
                    ("reason", "denials by reason"),
                    ("duration", "allowed messages by duration"),
                ],
                max_length=8,
            ),
        ),
        migrations.RunPython(recount, migrations.RunPython.noop),
    ]
