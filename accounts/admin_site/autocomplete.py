"""Autocomplete for fields that a form completes, and no others.

Django answers for every foreign key of every model. Staff who may view a list could
then search columns that only the list's own page should search.
"""

from __future__ import annotations

from typing import Any

from django.contrib.admin.views.autocomplete import AutocompleteJsonView
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.http import HttpRequest

from accounts.admin_site.declared_lookups import exceeds_limits


class DeclaredAutocompleteView(AutocompleteJsonView):
    """Also 403 for fields that no form of this user completes."""

    def process_request(self, request: HttpRequest) -> Any:
        """Term, list, field and key. Raises PermissionDenied, SuspiciousOperation."""
        if (
            exceeds_limits(request.GET)
            or len(request.GET.get("term", "")) > LONGEST_TERM
        ):
            raise SuspiciousOperation("The term is too long")
        parts = super().process_request(request)
        if not self.form_completes(request, parts[2]):
            raise PermissionDenied
        return parts

    def form_completes(self, request: HttpRequest, field: Any) -> bool:
        """Whether a form that this user may open completes the field."""
        site: Any = self.admin_site
        for page in site._registry.values():
            if page.has_view_or_change_permission(request):
                for form in (page, *page.get_inline_instances(request)):
                    names = form.get_autocomplete_fields(request)
                    if field.name in names and issubclass(form.model, field.model):
                        return True
        return False


LONGEST_TERM = 100
