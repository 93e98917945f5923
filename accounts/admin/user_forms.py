"""The form of a user account: passwords without hashes, and a warning for oneself."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib.auth.forms import (
    AdminPasswordChangeForm,
    ReadOnlyPasswordHashField,
    ReadOnlyPasswordHashWidget,
    SetUnusablePasswordMixin,
    UserChangeForm,
)
from django.utils.text import format_lazy
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.models import User
from accounts.models.users import LastSuperuser

ADMINISTRATION = ("is_superuser", "is_staff", "is_active")
"""Boxes without which a superuser can no longer administer."""


class PasswordState(ReadOnlyPasswordHashWidget):
    """Shows whether a password is set, not the parameters of its hash."""

    def get_context(self, name: str, value: Any, attrs: Any) -> dict[str, Any]:
        context: dict[str, Any] = super().get_context(name, value, attrs)
        if context["summary"] and "value" in context["summary"][0]:
            context["summary"] = [{"label": _("A password is set.")}]
        return context


class AccountForm(UserChangeForm):  # type: ignore[type-arg]
    """A superuser confirms ending their own rights; `User.clean` keeps the last one."""

    password = ReadOnlyPasswordHashField(
        label=gettext_lazy("Password"),
        widget=PasswordState,
        help_text=gettext_lazy("Passwords are stored as hashes and cannot be shown."),
    )
    end_own_access = forms.BooleanField(
        label=gettext_lazy("I want to end my own access"),
        required=False,
        help_text=gettext_lazy(
            "Tick this only to remove your own admin rights or to deactivate "
            "your own account. You cannot undo it yourself."
        ),
    )

    actor: User

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "is_service_account" in self.fields:
            self.fields["is_service_account"].label = gettext_lazy("Service account")

    def clean(self) -> dict[str, Any]:
        """A superuser ends their own administration only on purpose."""
        cleaned = super().clean() or self.cleaned_data
        lost = [
            name
            for name in ADMINISTRATION
            if self.initial.get(name) and name in cleaned and not cleaned[name]
        ]
        own = self.instance.pk == self.actor.pk and self.actor.is_superuser
        if lost and self.is_last_superuser():
            self.add_error(lost[0], LastSuperuser())
        elif own and lost and not cleaned.get("end_own_access"):
            self.add_error(
                lost[0],
                _(
                    "This is your own account. To do it anyway, also tick "
                    "“I want to end my own access”."
                ),
            )
        return cleaned

    def is_last_superuser(self) -> bool:
        """Whether nobody else could administer."""
        try:
            User.objects.filter(pk=self.instance.pk).refuse_last_superuser()
        except LastSuperuser:
            return True
        return False


class AccountPasswordForm(AdminPasswordChangeForm):  # type: ignore[type-arg]
    """Explains a disabled password in the reader's language.

    Django joins its text with a warning when it starts, which fixes the language.
    """

    usable_password_help_text = format_lazy(  # type: ignore[assignment]
        '{}<ul id="id_unusable_warning" class="messagelist">'
        '<li class="warning">{}</li></ul>',
        SetUnusablePasswordMixin.usable_password_help_text,
        gettext_lazy("The current password of this user is then deleted."),
    )
    """HTML; Django's script shows the warning when the password is disabled."""
