from django.db import migrations

from accounts.staff import GROUPS


def add(apps, schema_editor):
    groups = apps.get_model("auth", "Group")
    for name in GROUPS:
        groups.objects.get_or_create(name=name)


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0005_access_requests"),
        ("auth", "0012_alter_user_first_name_max_length"),
    ]
    operations = [migrations.RunPython(add, migrations.RunPython.noop)]
