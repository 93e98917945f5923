"""Copies of client metadata documents."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from accounts.admin_site.base import ActorFormMixin, DelegatedAdmin, changeable_rows
from accounts.admin_site.navigation.groups import Section
from accounts.authorization.delegation import objection_to_copy
from accounts.models import DocumentCopy, DocumentHost, User
from accounts.oauth.clients.document_copies import (
    check_document,
    fetch_copy,
    reapply,
)
from accounts.parsing.host_names import host_of_document


class PastedJSONField(forms.JSONField):
    """A field for JSON that is empty, not `null`, before anything is pasted."""

    def prepare_value(self, value: Any) -> Any:
        return "" if value is None else super().prepare_value(value)


class DocumentCopyForm(forms.ModelForm):  # type: ignore[type-arg]
    """A pasted document meets the rules of a fetched one and names its own URL."""

    actor: User

    class Meta:
        model = DocumentCopy
        fields = ("document", "origin", "read_on", "enabled")
        field_classes = {"document": PastedJSONField}

    def clean_document(self) -> dict[str, Any]:
        """Set URL and name of the row from the document."""
        document: dict[str, Any] = self.cleaned_data["document"]
        name, url = check_document(document).name, document["client_id"]
        self.check_url(url)
        self.instance.client_id, self.instance.name = url, name
        return document

    def check_url(self, url: str) -> None:
        """Raises ValidationError for a blocked host or the URL of another row."""
        if self.instance.pk and url != self.instance.client_id:
            text = _("This row is the copy of %s. Add another row for another URL.")
            raise forms.ValidationError(text % self.instance.client_id)
        others = DocumentCopy.objects.filter(client_id=url).exclude(pk=self.instance.pk)
        if others.exists():
            text = _("There is a copy of %s already. Change that one.")
            raise forms.ValidationError(text % url)
        host = host_of_document(url)
        if DocumentHost.objects.filter(host=host, trusted=False).exists():
            text = _("%s is blocked under client document hosts.")
            raise forms.ValidationError(text % host)


@admin.register(DocumentCopy)
class DocumentCopyAdmin(ActorFormMixin[DocumentCopy], DelegatedAdmin[DocumentCopy]):
    """Switching a copy off ends the access of the clients that stand on it."""

    noun = "document_copy"
    place = (Section.CLIENTS, 70)
    intro = _(
        "Copies of the documents of well-known clients. A copy is used only while this "
        "server cannot fetch the document."
    )
    nothing_yet = _("No copies yet. Add one by pasting a client's document.")
    list_display = ("name", "client_id", "enabled", "source", "read_on", "last_used_at")
    list_filter = ("enabled", "source")
    search_fields = ("name", "client_id")
    form = DocumentCopyForm
    fields = (
        "name",
        "client_id",
        "document",
        "source",
        "origin",
        "read_on",
        "enabled",
        "last_used_at",
    )
    readonly_fields = ("name", "client_id", "source", "last_used_at")
    actions = ("fetch", "switch_on", "switch_off")

    def may_change_row(self, actor: Any, obj: DocumentCopy) -> bool:
        """The client may act for users with more rights."""
        return not objection_to_copy(actor, obj)

    def has_delete_permission(self, request: Any, obj: Any = None) -> bool:
        """A shipped copy can be switched off only: migrate would add it again."""
        shipped = obj is not None and obj.source == DocumentCopy.Source.SHIPPED
        return super().has_delete_permission(request, obj) and not shipped

    def save_model(
        self, request: HttpRequest, obj: DocumentCopy, form: Any, change: bool
    ) -> None:
        """Apply the change to the client that stands on this copy."""
        if "document" in form.changed_data:
            obj.source = DocumentCopy.Source.PASTED
        super().save_model(request, obj, form, change)
        reapply(obj)
        if not obj.enabled:
            self.end_clients(request, obj)

    def delete_model(self, request: HttpRequest, obj: DocumentCopy) -> None:
        """End the access first, so that the audit names the actor."""
        self.end_clients(request, obj)
        super().delete_model(request, obj)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Permission to delete a copy covers its client."""
        objects, counts, needed, protected = super().get_deleted_objects(objs, request)
        permissions = {self.opts.verbose_name} & set(needed)
        return objects, counts, permissions, protected

    def end_clients(self, request: HttpRequest, copy: DocumentCopy) -> None:
        DocumentCopy.objects.filter(pk=copy.pk).switch_off(
            actor=request.user, reason="document copy switched off"
        )

    @admin.action(
        description=_("Fetch the documents of the selected copies again"),
        permissions=["change"],
    )
    def fetch(self, request: HttpRequest, queryset: Any) -> None:
        for copy in changeable_rows(self, request, queryset, objection_to_copy):
            failure = fetch_copy(copy)
            if failure is None:
                self.record_change(request, "fetched", copy)
                text = _("%s was fetched.") % copy
                self.message_user(request, text, messages.SUCCESS)
            else:
                text = f"{copy}: {failure.text()}"
                self.message_user(request, text, messages.ERROR)

    @admin.action(
        description=_("Switch the selected copies on"), permissions=["change"]
    )
    def switch_on(self, request: HttpRequest, queryset: Any) -> None:
        off = queryset.filter(enabled=False)
        for copy in changeable_rows(self, request, off, objection_to_copy):
            copy.enabled = True
            copy.save(update_fields=["enabled"])
            self.record_change(request, "changed", copy, {"enabled": [False, True]})

    @admin.action(
        description=_("Switch the selected copies off and revoke their tokens"),
        permissions=["change"],
    )
    def switch_off(self, request: HttpRequest, queryset: Any) -> None:
        on = queryset.filter(enabled=True)
        for copy in changeable_rows(self, request, on, objection_to_copy):
            self.end_clients(request, copy)
            self.record_change(request, "changed", copy, {"enabled": [True, False]})
