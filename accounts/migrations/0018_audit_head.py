"""Seals get a MAC, and one row names the newest; what there is is authenticated."""

import hashlib
import hmac
import json
from datetime import UTC

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings
from django.db import migrations, models
from django.utils import timezone


def mac(*parts):
    hkdf = HKDF(hashes.SHA256(), 32, salt=None, info=b"portico audit seals v1")
    key = hkdf.derive(settings.KEY_ENCRYPTION_KEY.encode())
    plain = [
        p.astimezone(UTC).isoformat() if hasattr(p, "astimezone") else p for p in parts
    ]
    text = json.dumps(plain, separators=(",", ":")).encode()
    return hmac.new(key, text, hashlib.sha256).hexdigest()


def authenticate(apps, schema_editor):
    seals = apps.get_model("accounts", "AuditSeal").objects.order_by("number")
    last = None
    for seal in seals.defer("marks").iterator(chunk_size=100):
        seal.mac = mac("seal", seal.digest, seal.sealed_at, seal.purged_at)
        seal.save(update_fields=["mac"])
        last = seal
    number, digest = (last.number, last.digest) if last else (0, "")
    apps.get_model("accounts", "AuditHead").objects.create(
        number=number, digest=digest, mac=mac("head", number, digest)
    )


def note_what_was_purged(apps, schema_editor):
    """Purges before this release left no event; from now on one is asked for."""
    seals = apps.get_model("accounts", "AuditSeal").objects
    purged = seals.exclude(purged_at=None).defer("marks").order_by("number")
    first, last, now = purged.first(), purged.last(), timezone.now()
    if last is None:
        return
    events = purged.aggregate(total=models.Sum("events"))["total"]
    apps.get_model("accounts", "AuditEvent").objects.create(
        at=now,
        action="audit.purged",
        actor="migrate",
        object=f"{events} events up to {last.last_id} (seals {first.number} to "
        f"{last.number})",
        changes={
            "first_seal": first.number,
            "last_seal": last.number,
            "events": events,
            "last_event": last.last_id,
            "last_digest": last.digest,
            "before": (now - settings.AUDIT_RETENTION).isoformat(),
            "retention_days": settings.AUDIT_RETENTION.days,
        },
    )


class Migration(migrations.Migration):

    dependencies = [
        ("accounts", "0017_addresses"),
    ]

    operations = [
        migrations.CreateModel(
            name="AuditHead",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("number", models.PositiveIntegerField(default=0)),
                ("digest", models.CharField(blank=True, max_length=64)),
                ("mac", models.CharField(max_length=64)),
            ],
        ),
        migrations.AlterModelOptions(
            name="auditevent",
            options={
                "base_manager_name": "objects",
                "ordering": ("-at", "-id"),
                "verbose_name": "audit event",
                "verbose_name_plural": "audit events",
            },
        ),
        migrations.AddField(
            model_name="auditseal",
            name="mac",
            field=models.CharField(default="", max_length=64),
        ),
        migrations.RunPython(authenticate, migrations.RunPython.noop),
        migrations.RunPython(note_what_was_purged, migrations.RunPython.noop),
    ]
