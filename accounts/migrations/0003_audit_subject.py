from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("accounts", "0002_default_data")]

    operations = [
        migrations.AddField(
            model_name="auditevent",
            name="subject",
            field=models.CharField(
                editable=False,
                help_text="The changed row, as model:ID. Its history shows the event.",
                max_length=64,
                null=True,
                verbose_name="subject",
            ),
        ),
        migrations.AddIndex(
            model_name="auditevent",
            index=models.Index(
                condition=models.Q(("subject__isnull", False)),
                fields=["subject", "at"],
                name="audit_subject",
            ),
        ),
        migrations.AddIndex(
            model_name="auditevent",
            index=models.Index(
                condition=models.Q(("outcome", "error")),
                fields=["at"],
                name="audit_errors",
            ),
        ),
    ]
