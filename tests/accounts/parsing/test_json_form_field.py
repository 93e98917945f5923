"""JSON in forms: an error is shown on the form, whatever the text is."""

from __future__ import annotations

from typing import Any

import pytest
from django import forms
from django.core.exceptions import ValidationError

from accounts.parsing.json_form_field import JSONFormField

pytestmark = pytest.mark.once
HOSTILE = {
    "broken": "{",
    "huge number": "1" * 5000,
    "deep": "[" * 100_000,
    "lone surrogate": '"\\ud800"',
    "raw surrogate": '"\ud800"',
    "infinite": "[1e999",
}
INVALID = "This is not valid JSON. Check quotes, commas and brackets."


class JSONForm(forms.Form):
    value = JSONFormField()


@pytest.mark.parametrize(
    ("text", "value"),
    [('{"a": [1]}', {"a": [1]}), ('"é"', "é"), ("null", None), ("", None)],
)
def test_json_is_parsed(text: str, value: Any) -> None:
    assert JSONFormField(required=False).to_python(text) == value


@pytest.mark.parametrize("name", HOSTILE)
def test_other_text_is_an_error_of_the_field(name: str) -> None:
    with pytest.raises(ValidationError) as refused:
        JSONFormField().to_python(HOSTILE[name])
    assert refused.value.code == "invalid"
    assert refused.value.messages == [INVALID]


@pytest.mark.parametrize("name", HOSTILE)
def test_the_form_shows_the_text_again(name: str) -> None:
    form = JSONForm({"value": HOSTILE[name]})
    assert form.errors == {"value": [INVALID]}
    html = str(form)
    assert html.encode()
    if name not in ("lone surrogate", "raw surrogate"):
        assert HOSTILE[name].replace('"', "&quot;") in html


def test_a_value_is_shown_as_json() -> None:
    form = JSONForm({"value": '{"a": "<b>"}'})
    assert form.is_valid() and "{&quot;a&quot;: &quot;&lt;b&gt;&quot;}" in str(form)
    assert JSONFormField().prepare_value({"a": 1}) == '{"a": 1}'
    assert JSONFormField().prepare_value("\ud800").encode()


def test_an_empty_field_is_empty() -> None:
    """Not "null"; a field that needs a value may have null as its value."""
    assert JSONFormField(required=False).prepare_value(None) == ""
    assert JSONFormField().prepare_value(None) == "null"


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (False, "false"), ("", '""'), ([], "[]"), ({}, "{}")],
)
def test_a_value_that_counts_as_false_is_shown(value: Any, shown: str) -> None:
    for required in (True, False):
        assert JSONFormField(required=required).prepare_value(value) == shown
