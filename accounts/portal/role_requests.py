"""Access requests: request a role with a reason, and see the decision."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.audit.record import record
from accounts.authentication.pages import Page
from accounts.models import AccessRequest, Role, User
from accounts.models.access_requests import RequestNotPossible
from accounts.parsing.ends import refuse_late_end
from accounts.parsing.moments import end_of_day
from accounts.parsing.row_ids import row_id


class AccessForm(forms.Form):
    """A role, a reason and an optional end."""

    role = forms.ModelChoiceField(
        queryset=Role.objects.none(), label=gettext_lazy("Role")
    )
    reason = forms.CharField(
        max_length=255, label=gettext_lazy("What do you need it for?")
    )
    until = forms.DateField(
        required=False,
        widget=forms.DateInput(attrs={"type": "date"}),
        label=gettext_lazy("Until (leave empty for no end date)"),
    )

    def __init__(self, user: User, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        permanent = user.role_assignments.filter(expires_at=None).values("role")
        field = self.fields["role"]
        assert isinstance(field, forms.ModelChoiceField)  # noqa: S101
        field.queryset = Role.objects.exclude(pk__in=permanent)

    def clean_until(self) -> Any:
        """The end of that day, which must not have passed."""
        day = self.cleaned_data["until"]
        if day is None:
            return None
        if day < timezone.localdate():
            raise forms.ValidationError(
                _("This date is in the past. Choose a later one.")
            )
        end = end_of_day(day)
        refuse_late_end(end)
        return end


class AccessView(Page):
    """GET: list and form. POST requests a role; `withdraw=ID` withdraws a request."""

    def get(self, request: HttpRequest) -> HttpResponse:
        """Roles and requests of the user, and an empty form."""
        return self.show(AccessForm(self.me))

    def show(self, form: AccessForm, status: int = 200) -> HttpResponse:
        context = {
            "form": form,
            "held": self.me.role_assignments.select_related("role"),
            "asked": self.me.access_requests.select_related("role")[:50],
        }
        return render(self.request, "portal/access.html", context, status=status)

    def post(self, request: HttpRequest) -> HttpResponse:
        if "withdraw" in request.POST:
            return self.withdraw(request.POST["withdraw"])
        form = AccessForm(self.me, request.POST)
        if not form.is_valid():
            return self.show(form, status=400)
        try:
            self.ask(form.cleaned_data)
        except RequestNotPossible as error:
            form.add_error("role", str(error))
            return self.show(form, status=400)
        return redirect("portal-access")

    def ask(self, data: dict[str, Any]) -> None:
        with transaction.atomic():
            access_request = AccessRequest.objects.all().ask(self.me, **data)
            self.record_event("access.requested", access_request)
        messages.success(
            self.request,
            _("Request for %s sent. Its status appears below.") % access_request.role,
        )

    def withdraw(self, key: str) -> HttpResponse:
        mine = self.me.access_requests.all()
        access_request = get_object_or_404(mine, pk=row_id(key))
        try:
            access_request.withdraw()
        except RequestNotPossible as error:
            messages.error(self.request, str(error))
        else:
            self.record_event("access.withdrawn", access_request)
        return redirect("portal-access")

    def record_event(self, action: str, access_request: AccessRequest) -> None:
        record(
            action,
            actor=self.me,
            request=self.request,
            object=access_request,
            reason=access_request.reason,
        )
