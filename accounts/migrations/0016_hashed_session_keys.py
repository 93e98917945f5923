from django.db import migrations


def sign_everybody_out(apps, schema_editor):
    """Rows made before hold keys that work as cookies."""
    apps.get_model("usersessions", "UserSession").objects.all().delete()
    apps.get_model("sessions", "Session").objects.all().delete()


class Migration(migrations.Migration):

    dependencies = [
        ("accounts", "0015_sealed_successors"),
        ("sessions", "0001_initial"),
        ("usersessions", "0001_initial"),
    ]

    operations = [
        migrations.RunPython(sign_everybody_out, migrations.RunPython.noop),
    ]
