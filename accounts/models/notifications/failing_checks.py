"""FailingCheck: the checks of `doctor` that failed when they ran last."""

from __future__ import annotations

from collections.abc import Mapping

from django.db import IntegrityError, models, transaction
from django.utils import timezone

from accounts.models.notifications.kinds import CHECK_FAILED
from accounts.models.notifications.outbox import notify


class FailingCheckQuerySet(models.QuerySet["FailingCheck"]):
    def update_from(self, found: Mapping[str, tuple[str, str]]) -> int:
        """Store which checks fail: id -> (problem, fix). Notify of those that are new.

        Returns their number. Several processes may do this at the same time.
        """
        known = set(self.values_list("check_id", flat=True))
        self.filter(check_id__in=known - found.keys()).delete()
        return sum(self._add(name, *found[name]) for name in found.keys() - known)

    def _add(self, name: str, problem: str, fix: str) -> bool:
        data = {"object": name, "problem": problem, "fix": fix}
        try:
            with transaction.atomic():
                self.create(check_id=name)
                notify(CHECK_FAILED.name, data)
        except IntegrityError:  # Another process was faster.
            return False
        return True

    update_from.queryset_only = update_from.alters_data = True  # type: ignore[attr-defined]


class FailingCheck(models.Model):
    """A row for each check that fails, so that each failure is notified once."""

    check_id = models.CharField(max_length=64, unique=True)
    since = models.DateTimeField(default=timezone.now)

    objects = FailingCheckQuerySet.as_manager()

    def __str__(self) -> str:
        return self.check_id
