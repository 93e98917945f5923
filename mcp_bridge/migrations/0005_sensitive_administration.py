from django.db import migrations

WRITING = ("grant_role", "revoke_role", "revoke_tokens")


def mark(apps, schema_editor):
    """Rows decide, not code: those that exist already have to be told."""
    primitives = apps.get_model("mcp_bridge", "Primitive")
    primitives.objects.filter(kind="tool", name__in=WRITING).update(sensitive=True)


class Migration(migrations.Migration):

    dependencies = [
        ("mcp_bridge", "0004_words"),
    ]

    operations = [migrations.RunPython(mark, migrations.RunPython.noop)]
