"""The base of all lists at /api/v1/: the rights and rules of the admin's list."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeVar

from django.contrib import admin
from django.db import models, transaction
from django.http import Http404
from drf_spectacular.utils import extend_schema
from rest_framework import mixins, serializers, status
from rest_framework.parsers import JSONParser
from rest_framework.renderers import JSONRenderer
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from accounts.admin_api.admin_forms import (
    InlineRows,
    admin_request,
    filled_form,
    filled_formset,
    run_action,
    save,
)
from accounts.admin_api.authentication import (
    MayAdminister,
    PersonalTokenAuthentication,
)
from accounts.admin_api.pages import CursorPages, DeclaredFilters, Filters
from accounts.admin_api.problems import FormRefused, Unchanged, checked_values, handle
from accounts.authorization.delegation import NotAllowed

NOT_VIEWED = (
    "You may not view this list. Ask a superuser for the permission to view it."
)
NOT_CHANGED = "You may view this, but not change it."


F = TypeVar("F", bound=Callable[..., Any])


def documented(**words: Any) -> Callable[[F], F]:
    """drf-spectacular's `extend_schema`, which has no types."""
    decorate: Callable[[F], F] = extend_schema(**words)
    return decorate


class NoFields(serializers.Serializer[Any]):
    """The body of an operation without input: nothing, or an empty object."""


class ListView(mixins.ListModelMixin, GenericViewSet[Any]):
    """Reads rows of `model` with the permissions of its ModelAdmin.

    A row that the actor may not view does not exist: 404.
    """

    model: type[models.Model]
    filters: Filters = {}
    ordering: tuple[str, ...] = ("-pk",)
    authentication_classes = (PersonalTokenAuthentication,)
    permission_classes = (MayAdminister,)
    parser_classes = (JSONParser,)
    renderer_classes = (JSONRenderer,)
    pagination_class = CursorPages
    filter_backends = (DeclaredFilters,)
    lookup_value_converter = "int"

    def get_exception_handler(self) -> Any:
        return handle

    def handle_exception(self, exc: Exception) -> Any:
        """Name the fields of a form as JSON does."""
        if isinstance(exc, FormRefused):
            serializer: Any = self.get_serializer()
            fields = serializer.fields.items()
            exc.names |= {str(field.source): name for name, field in fields}
        return super().handle_exception(exc)

    @cached_property
    def page(self) -> Any:
        """The ModelAdmin, which has the rules."""
        return admin.site.get_model_admin(self.model)

    @cached_property
    def acting(self) -> Any:
        """The request as the admin sees it."""
        actor: Any = self.request.user
        return admin_request(self.request._request, actor)

    def get_queryset(self) -> Any:
        """The rows of the admin's list. Raises Http404 without the right to view."""
        if getattr(self, "swagger_fake_view", False):
            return self.model._default_manager.none()
        if not self.page.has_view_permission(self.acting):
            raise Http404(NOT_VIEWED)
        return self.page.get_queryset(self.acting)

    def narrow(self, rows: Any, conditions: dict[str, Any]) -> Any:
        return rows.filter(**conditions)

    def retrieve(self, request: Any, *args: Any, **kwargs: Any) -> Response:
        return self.shown(self.get_object())

    def shown(self, row: Any, code: int = 200, **once: str) -> Response:
        """The row with its ETag; `once` are secrets that no other response has."""
        data = self.get_serializer(row).data
        tag = {"ETag": etag(data)}
        return Response({**data, **once}, status=code, headers=tag)

    def finalize_response(self, *args: Any, **kwargs: Any) -> Any:
        """Forbid caching; errors pass through here, too."""
        response = super().finalize_response(*args, **kwargs)
        response["Cache-Control"] = "no-store"
        return response

    def asked(self, kind: Any, **options: Any) -> dict[str, Any]:
        """The body as this serializer reads it. Raises ValidationError."""
        return checked_values(kind(data=self.request.data, **options))

    def locked(self) -> Any:
        """The row, locked. Raises Http404, Unchanged."""
        found = self.get_object()
        rows = self.model._default_manager.select_for_update(of=("self",), no_key=True)
        list(rows.filter(pk=found.pk).values_list("pk"))
        row = self.get_object()
        wanted = self.request.headers.get("If-Match", "*")
        tags = {tag.strip() for tag in wanted.split(",")}
        if "*" not in tags and etag(self.get_serializer(row).data) not in tags:
            raise Unchanged
        return row

    def act(self, name: str, *, atomic: bool = True) -> Response:
        """Run an action of the admin for the row of the address."""
        self.asked(NoFields)
        row = self.get_object()
        rows = self.page.get_queryset(self.acting).filter(pk=row.pk)
        if atomic:
            with transaction.atomic():
                run_action(self.page, self.acting, name, rows)
        else:
            run_action(self.page, self.acting, name, rows)
        return self.shown(self.get_object())


class ChangeMixin(ListView):
    """PATCH: the fields that are sent; the others keep their values."""

    inline_rows: dict[str, InlineRows] = {}
    """Field with a list of rows -> the inline of the admin's form."""

    def given(self, partial: bool) -> dict[str, Any]:
        """The values of the body as the admin's form takes them.

        Raises ValidationError.
        """
        return checked_values(
            self.get_serializer(data=self.request.data, partial=partial)
        )

    def objection(self, row: Any) -> str:
        """Why the actor may not change `row`, for the text of the refusal."""
        return ""

    def partial_update(self, request: Any, *args: Any, **kwargs: Any) -> Response:
        """Change the row. With If-Match, only if its ETag is still the same."""
        given = self.given(partial=True)
        with transaction.atomic():
            row = self.locked()
            if not self.page.has_change_permission(self.acting, row):
                raise NotAllowed(self.objection(row) or NOT_CHANGED)
            self.change(row, given)
        return self.shown(self.get_object())

    def change(self, row: Any, given: dict[str, Any]) -> None:
        self.fill_and_save(given, row)

    def fill_and_save(self, given: dict[str, Any], row: Any = None) -> Any:
        """Save `row`, or a new row, as the admin's form with its inlines would."""
        lists = {n: given.pop(n) for n in self.inline_rows if n in given}
        form = filled_form(self.page, self.acting, given, row)
        formsets = [
            filled_formset(self.page, self.acting, form, name, rows, lists[name])
            for name, rows in self.inline_rows.items()
            if name in lists
        ]
        change = row is not None
        return save(self.page, self.acting, form, formsets, change=change)


class AddMixin(ChangeMixin):
    """POST adds a row."""

    def create(self, request: Any, *args: Any, **kwargs: Any) -> Response:
        given = self.given(partial=False)
        self.get_queryset()
        if not self.page.has_add_permission(self.acting):
            raise NotAllowed("You may view this list, but not add to it.")
        with transaction.atomic():
            row = self.add(given)
        return self.added(row)

    def add(self, given: dict[str, Any]) -> Any:
        return self.fill_and_save(given)

    def added(self, row: Any, **once: str) -> Response:
        found = self.page.get_queryset(self.acting).get(pk=row.pk)
        return self.shown(found, status.HTTP_201_CREATED, **once)


class DeleteMixin(ChangeMixin):
    """DELETE removes the row."""

    def destroy(self, request: Any, *args: Any, **kwargs: Any) -> Response:
        with transaction.atomic():
            row = self.locked()
            if not self.page.has_delete_permission(self.acting, row):
                raise NotAllowed(self.objection(row) or NOT_CHANGED)
            self.page.delete_model(self.acting, row)
        return Response(status=status.HTTP_204_NO_CONTENT)


def etag(data: Any) -> str:
    """A strong validator of a representation (RFC 9110 8.8.3)."""
    digest = hashlib.sha256(JSONRenderer().render(data)).hexdigest()
    return f'"{digest[:32]}"'
