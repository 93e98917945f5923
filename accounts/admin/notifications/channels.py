"""Notification channels; only superusers change them, because they send data out."""

from __future__ import annotations

import copy
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.options import IS_POPUP_VAR, TO_FIELD_VAR
from django.core.exceptions import PermissionDenied, ValidationError
from django.core.validators import validate_email
from django.http import HttpRequest, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.decorators import method_decorator
from django.utils.html import format_html
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_POST

from accounts.admin.tokens.oauth_clients import copyable
from accounts.admin_site.base import SuperusersChangeAdmin, badge
from accounts.admin_site.navigation.groups import Section
from accounts.admin_site.site import row_link
from accounts.http.private_addresses import address_in, is_inside, may_contact
from accounts.models import Delivery, NotificationChannel
from accounts.models.notifications.channels import ChannelKind, split_addresses
from accounts.models.notifications.deliveries import DeliveryState
from accounts.models.notifications.kinds import AUDIT, KINDS
from accounts.notifications.sending import send_test
from accounts.parsing.urls import split_url

MOST_ADDRESSES = 50
NEEDS = {
    ChannelKind.MAIL: _("One mail to all addresses that you enter."),
    ChannelKind.SLACK: _("The URL of an incoming webhook of Slack or Mattermost."),
    ChannelKind.WEBHOOK: _("A URL of yours. It gets JSON with a signature."),
}
NEEDED = {ChannelKind.MAIL: "mail_to"}
URL_FIELD = "secret_url"
"""The word `secret` hides its values in the audit."""


def kind_choices() -> list[tuple[str, Any]]:
    return [(kind.name, kind.label) for kind in KINDS.values()]


class ChannelForm(forms.ModelForm):  # type: ignore[type-arg]
    """The URL can be set but is never displayed."""

    secret_url = forms.CharField(
        label=_("URL"),
        required=False,
        max_length=2000,
        widget=forms.TextInput(attrs={"autocomplete": "off", "inputmode": "url"}),
        help_text=_(
            "Of a webhook, such as https://hooks.slack.com/services/... It is stored "
            "encrypted and not shown again. Leave empty to keep the current one."
        ),
    )
    events = forms.MultipleChoiceField(
        label=_("Events"),
        choices=kind_choices,
        widget=forms.CheckboxSelectMultiple,
    )

    class Meta:
        model = NotificationChannel
        fields = ("name", "kind", "mail_to", "secret_url", "events", "enabled")

    def clean_mail_to(self) -> str:
        """One address a line. Raises ValidationError that names the first bad one."""
        found = split_addresses(self.cleaned_data["mail_to"])
        for address in found:
            try:
                validate_email(address)
            except ValidationError as error:
                text = _("This is not a mail address: %s")
                raise ValidationError(text % address[:80]) from error
        if len(found) > MOST_ADDRESSES:
            text = _("Enter at most %d addresses. A mailing list can have more.")
            raise ValidationError(text % MOST_ADDRESSES)
        return "\n".join(found)

    def clean_secret_url(self) -> str:
        url: str = self.cleaned_data[URL_FIELD].strip()
        if url:
            check_webhook_url(url)
        return url

    def clean(self) -> dict[str, Any]:
        """Require what the kind needs, and refuse what it does not use."""
        cleaned = super().clean() or {}
        kind = cleaned.get("kind") or self.instance.kind
        if AUDIT.name in cleaned.get("events", ()) and kind != ChannelKind.WEBHOOK:
            self.add_error("events", _("Only signed webhooks get every audit event."))
        needed = NEEDED.get(ChannelKind(kind), URL_FIELD) if kind else ""
        for name in ("mail_to", URL_FIELD):
            if name not in self.fields or name in self.errors or not kind:
                continue
            kept = name == URL_FIELD and self.instance.host
            if name == needed and not cleaned.get(name) and not kept:
                self.add_error(name, _("This kind of channel needs it."))
            if name != needed and cleaned.get(name):
                self.add_error(name, _("This kind of channel does not use it."))
        return cleaned


def chosen_kind(request: HttpRequest) -> str:
    """The kind that the address of the add page names; empty if none."""
    kind = request.GET.get("kind", "")
    return kind if kind in ChannelKind.values else ""


def check_webhook_url(url: str) -> None:
    """Raises ValidationError for a URL that Portico would not contact."""
    if "@" in url.partition("//")[2].partition("/")[0]:
        raise ValidationError(_("Leave user name and password out of the URL."))
    parts = split_url(url)
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValidationError(_("Enter a URL such as https://siem.example.com/hook."))
    if parts.scheme == "http" and not is_inside(parts.hostname):
        raise ValidationError(_("Use https. Anyone on the way can read http."))
    address = address_in(url)
    if address and not may_contact(address):
        text = _(
            "%s is a private address. If it is meant, add its network to "
            "UPSTREAM_PRIVATE_NETWORKS."
        )
        raise ValidationError(text % address)


@admin.register(NotificationChannel)
class NotificationChannelAdmin(SuperusersChangeAdmin[NotificationChannel]):
    noun = "notification_channel"
    place = (Section.SETTINGS, 12)
    form = ChannelForm
    intro = _(
        "Where Portico reports what needs attention: by mail, to Slack, or to any "
        "program by a signed webhook."
    )
    nothing_yet = _("No channels yet. Add one, then use Send a test on its page.")
    list_display = ("name", "kind", "target", "enabled", "last_result")
    actions = ("renew_secret",)
    change_form_template = "admin/notification_channel.html"

    def get_fields(self, request: Any, obj: Any = None) -> Any:
        """Only what the kind needs; without a chosen kind, what any kind needs."""
        kind = chosen_kind(request) if obj is None else obj.kind
        if not kind:
            return self.form.Meta.fields
        if obj is not None and not self.has_change_permission(request, obj):
            return ("name", "kind", "target", "events", "enabled")
        if kind == ChannelKind.MAIL:
            return ("name", "kind", "mail_to", "events", "enabled")
        target = ("target",) if obj is not None else ()
        return ("name", "kind", *target, URL_FIELD, "events", "enabled")

    def get_form(self, request: Any, obj: Any = None, **options: Any) -> Any:  # type: ignore[override]
        """Offer the events of the kind; a kind that was chosen is fixed."""
        form: Any = super().get_form(request, obj, **options)
        chosen = chosen_kind(request) if obj is None else ""
        if chosen:
            field = form.base_fields["kind"]
            field.choices = [(chosen, ChannelKind(chosen).label)]
            field.initial = chosen
        kind = obj.kind if obj is not None else chosen
        if kind and kind != ChannelKind.WEBHOOK and "events" in form.base_fields:
            # A copy: classes of all requests share the declared field.
            field = copy.deepcopy(form.base_fields["events"])
            field.choices = [one for one in kind_choices() if one[0] != AUDIT.name]
            form.base_fields["events"] = field
        return form

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: Any = None
    ) -> Any:
        """First choose the kind, by a link; then the form has its fields."""
        popup = {IS_POPUP_VAR, TO_FIELD_VAR} & request.GET.keys()
        asks = request.method == "GET" and not popup and not chosen_kind(request)
        if not asks or not self.has_add_permission(request):
            return super().add_view(request, form_url, extra_context)
        kinds = [
            {"value": kind.value, "label": kind.label, "needs": NEEDS[kind]}
            for kind in ChannelKind
        ]
        listing = reverse("admin:accounts_notificationchannel_changelist")
        context = {
            **self.admin_site.each_context(request),
            "title": _("Add a notification channel"),
            "parent": (listing, self.opts.verbose_name_plural),
            "kinds": kinds,
        }
        return TemplateResponse(
            request, "admin/notification_channel_kinds.html", context
        )

    def get_readonly_fields(self, request: Any, obj: Any = None) -> Any:
        return () if obj is None else ("kind", "target")

    @admin.display(description=_("target"))
    def target(self, obj: NotificationChannel) -> str:
        """The addresses, or the host: the rest of a URL is secret."""
        return ", ".join(obj.addresses) if obj.kind == ChannelKind.MAIL else obj.host

    @admin.display(description=_("last result"))
    def last_result(self, obj: NotificationChannel) -> Any:
        last = obj.last_delivery()
        return "-" if last is None else shown_state(last)

    def save_model(
        self, request: HttpRequest, obj: NotificationChannel, form: Any, change: bool
    ) -> None:
        if form.cleaned_data.get(URL_FIELD):
            obj.set_url(form.cleaned_data[URL_FIELD])
        if not change and obj.kind == ChannelKind.WEBHOOK:
            self.show_once(request, obj)
        super().save_model(request, obj, form, change)

    def show_once(self, request: HttpRequest, obj: NotificationChannel) -> None:
        """Give the channel a new secret, shown in a message of the next page only."""
        secret = obj.renew_secret()
        label = gettext("Secret of %s, shown only once:") % obj.name
        self.message_user(request, copyable(label, secret), messages.SUCCESS)

    @admin.action(
        description=_("Create a new secret (shown once)"), permissions=["change"]
    )
    def renew_secret(self, request: HttpRequest, queryset: Any) -> None:
        """The old secret signs nothing from now on."""
        for channel in queryset.filter(kind=ChannelKind.WEBHOOK):
            self.show_once(request, channel)
            channel.save(update_fields=["secrets_encrypted"])
            self.record_change(request, "secret_rotated", channel)

    @method_decorator(sensitive_post_parameters(URL_FIELD))
    def changeform_view(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        return super().changeform_view(request, *args, **kwargs)

    def get_urls(self) -> list[Any]:
        test = self.admin_site.admin_view(require_POST(self.test_view))
        name = "accounts_notificationchannel_test"
        return [path("<int:object_id>/test/", test, name=name), *super().get_urls()]

    def test_view(self, request: HttpRequest, object_id: int) -> HttpResponseRedirect:
        """Send a test and say what came of it. No transaction is open meanwhile."""
        if not self.has_change_permission(request):
            raise PermissionDenied
        channel = get_object_or_404(NotificationChannel, pk=object_id)
        sent = self.send_test_to(request, channel)
        arrived = sent.state == DeliveryState.DELIVERED
        text = _("The test has arrived: %s.") if arrived else _("Not delivered: %s")
        level = messages.SUCCESS if arrived else messages.ERROR
        self.message_user(request, text % gettext(sent.result), level)
        return HttpResponseRedirect(self.row_url(channel))

    def send_test_to(self, request: Any, channel: NotificationChannel) -> Delivery:
        """Send a test and record it; outside any transaction."""
        sent = send_test(channel)
        self.record_change(request, "tested", channel, reason=sent.result)
        return sent


LOOKS = {DeliveryState.DELIVERED: "good", DeliveryState.FAILED: "bad"}


def shown_state(row: Delivery) -> Any:
    """The state with its colour, and the last result."""
    waits = "warn" if row.result else ""
    result = row.result and gettext(row.result)
    shown = badge(row.get_state_display(), LOOKS.get(DeliveryState(row.state), waits))
    return format_html("{} <small>{}</small>", shown, result)


@row_link(NotificationChannel)
def deliveries_of(
    request: HttpRequest, channel: NotificationChannel
) -> list[tuple[Any, str]]:
    if not request.user.has_perm("accounts.view_delivery"):
        return []
    listing = reverse("admin:accounts_delivery_changelist")
    return [(_("Deliveries"), f"{listing}?channel__id__exact={channel.pk}")]
