"""/api/v1/upstreams/: MCP servers elsewhere. Secrets can be set but are never shown."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.response import Response

from accounts.admin_api.admin_forms import filled_form
from accounts.admin_api.pages import Filters, text
from accounts.admin_api.problems import FormRefused
from accounts.admin_api.views import AddMixin, DeleteMixin, documented
from accounts.authorization.delegation import NotAllowed
from mcp_bridge.admin.upstreams.add_form import (
    CREDENTIAL_FIELDS,
    UpstreamForm,
    look_at,
)
from mcp_bridge.admin.upstreams.servers import save_looked
from mcp_bridge.admin_api.switches import SwitchMixin
from mcp_bridge.models import DefinitionState, UpstreamCredential, UpstreamServer
from mcp_bridge.upstreams.registration.checks import shared_credential


class CredentialSerializer(serializers.ModelSerializer[UpstreamCredential]):
    class Meta:
        model = UpstreamCredential
        fields = CREDENTIAL_FIELDS


class UpstreamSerializer(serializers.ModelSerializer[UpstreamServer]):
    """A server with its shared credential, whose `secret` can only be written."""

    secret = serializers.CharField(write_only=True, required=False, max_length=8192)
    save_unreachable = serializers.BooleanField(
        write_only=True,
        required=False,
        help_text="Add it although it does not answer.",
    )
    status = serializers.SerializerMethodField()
    definitions = serializers.SerializerMethodField()

    class Meta:
        model = UpstreamServer
        fields = (
            "id",
            *UpstreamForm.Meta.fields,
            "secret",
            "save_unreachable",
            "status",
            "definitions",
        )
        extra_kwargs = {
            name: {"validators": [], "required": False} for name in ("prefix",)
        }

    def get_fields(self) -> dict[str, Any]:
        """The credential's fields stand beside the server's, as in the admin's form."""
        fields = super().get_fields()
        for name, field in CredentialSerializer().get_fields().items():
            field.required, field.write_only = False, True
            fields[name] = field
        return fields

    def to_representation(self, instance: UpstreamServer) -> dict[str, Any]:
        shown = super().to_representation(instance)
        row = shared_credential(instance)
        for name in CREDENTIAL_FIELDS:
            shown[name] = getattr(row, name) if row is not None else ""
        return shown

    def get_status(self, row: UpstreamServer) -> dict[str, Any]:
        """The last contact and its error."""
        status = getattr(row, "status", None)
        names = ("protocol", "server_name", "server_version", "contacted_at", "error")
        return {name: getattr(status, name, None) for name in names}

    def get_definitions(self, row: UpstreamServer) -> dict[str, int]:
        """State -> number of its tools, resources and prompts."""
        states = list(row.primitives.values_list("state", flat=True))
        return {state: states.count(state) for state in DefinitionState.values}


@documented(tags=["upstreams"])
class UpstreamsView(SwitchMixin, AddMixin, DeleteMixin):
    """Upstream servers. Only superusers add, change and enable them."""

    model = UpstreamServer
    serializer_class = UpstreamSerializer
    filters: Filters = {
        "name": ("name", text()),
        "enabled": ("enabled", serializers.BooleanField()),
    }

    def create(self, request: Any, *args: Any, **kwargs: Any) -> Response:
        """Look at the server, then save it with what it offers."""
        given = self.given(partial=False)
        anyway = given.pop("save_unreachable", False)
        self.get_queryset()
        if not self.page.has_add_permission(self.acting):
            raise NotAllowed("Only superusers add upstream servers.")
        form = filled_form(self.page, self.acting, given)
        form.actor = self.acting.user
        if not form.is_valid():
            raise FormRefused(form)
        looked = look_at(form)
        if looked.found is None and not anyway:
            form.add_error("url", looked.problem)
            raise FormRefused(form)
        save_looked(self.acting, form, looked)
        return self.added(form.instance)

    def change(self, row: Any, given: dict[str, Any]) -> None:
        given.pop("save_unreachable", None)
        super().change(row, given)

    @documented(request=None)
    @action(methods=["post"], detail=True)
    def discover(self, request: Any, pk: int) -> Response:
        """Ask the server what it offers. Waits for its answer."""
        return self.act("discover", atomic=False)
