import django.contrib.postgres.indexes
from django.db import migrations, models

import accounts.models.audit.indexes

SMALLER = {
    "audit_action": ["action", "at"],
    "audit_actor": ["actor", "at"],
    "audit_client": ["client_id", "at"],
    "audit_token": ["token_id", "at"],
}


class Migration(migrations.Migration):
    dependencies = [("accounts", "0005_client_document_copies")]
    operations = [
        *(
            migrations.RemoveIndex("auditevent", name)
            for name in (*SMALLER, "audit_actor_id", "audit_request", "audit_object")
        ),
        *(
            migrations.AddIndex(
                "auditevent",
                accounts.models.audit.indexes.ByValueIndex(fields=fields, name=name),
            )
            for name, fields in SMALLER.items()
        ),
        migrations.AddIndex(
            "auditevent",
            accounts.models.audit.indexes.ByValueIndex(
                fields=["object", "at"],
                name="audit_object",
                opclasses=["varchar_pattern_ops", "timestamptz_ops"],
            ),
        ),
        migrations.AddIndex(
            "auditevent",
            django.contrib.postgres.indexes.HashIndex(
                fields=["request_id"], name="audit_request"
            ),
        ),
        migrations.AddIndex(
            "auditevent",
            models.Index(
                fields=["actor_id", "at"],
                condition=models.Q(decision="denied"),
                name="audit_actor_denied",
            ),
        ),
    ]
