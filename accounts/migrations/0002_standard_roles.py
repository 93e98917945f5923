from django.db import migrations

from accounts.standard import install


def add(apps, schema_editor):
    install(apps.get_model("accounts", "Scope"), apps.get_model("accounts", "Role"))


class Migration(migrations.Migration):
    dependencies = [("accounts", "0001_initial")]
    operations = [migrations.RunPython(add, migrations.RunPython.noop)]
