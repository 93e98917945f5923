"""Template tags of the admin."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from django import forms
from django.contrib.admin.widgets import AdminSplitDateTime

from accounts.admin_site import site
from accounts.models import User
from accounts.templatetags.portico_admin import labelled, links_of_row

pytestmark = pytest.mark.once


class Form(forms.Form):
    plain = forms.CharField(label="the name")
    when = forms.SplitDateTimeField(label="end", widget=AdminSplitDateTime)
    hidden = forms.CharField(widget=forms.HiddenInput)
    bare = forms.CharField(label="")


def shown(name: str) -> str:
    field: Any = SimpleNamespace(field=Form()[name])
    return labelled(field)


def test_an_input_has_the_label_of_its_column() -> None:
    """WCAG 2 4.1.2."""
    assert 'aria-label="The name"' in shown("plain")
    assert 'aria-label="Bare"' in shown("bare")
    assert shown("when").count('aria-label="End"') == 2


def test_hidden_inputs_have_none() -> None:
    assert "aria-label" not in shown("hidden") and 'type="hidden"' in shown("hidden")


def test_links_belong_to_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "_row_links", [])
    site.row_link(User)(lambda request, row: [(f"{request} {row.username}", "/x")])
    context = {"request": "request"}
    assert links_of_row(context, User(username="zoe")) == [("request zoe", "/x")]
    assert links_of_row(context, None) == []
