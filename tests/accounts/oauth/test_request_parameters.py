"""Parameters that every OAuth endpoint reads in the same way."""

from __future__ import annotations

import pytest
from django.conf import settings
from django.http import QueryDict

from accounts.models import Scope
from accounts.oauth.request_parameters import (
    RESERVED_PARAMETERS,
    normalized_form,
    resource_objection,
)

RESERVED = (
    "access_token claims client encoding expires_in extra_credentials grant id_token "
    "refresh_token_instance scopes user using_default_redirect_uri"
).split()


@pytest.mark.parametrize("name", RESERVED)
def test_a_parameter_cannot_replace_an_attribute_of_the_libraries(name: str) -> None:
    """oauthlib sets parameters as attributes of its request."""
    form = normalized_form(QueryDict(f"{name}=x&{name}=y&state=s"))
    assert form.urlencode() == "state=s"


def test_the_table_of_reserved_parameters_is_complete() -> None:
    assert set(RESERVED) == RESERVED_PARAMETERS


@pytest.mark.spec("OAuth 2.1 3.1: empty is omitted")
@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("a=&b=1", "b=1"),
        ("a=1&a=", "a=1"),
        ("a=&a=1", "a=1"),
        ("unknown=1", "unknown=1"),
        ("resource=x&resource=y&resource=", "resource=x&resource=y"),
        ("scope=a++b%09c", "scope=a+b+c"),
        ("scope=offline_access", ""),
        ("scope=a+offline_access+b", "scope=a+b"),
        ("scope=openid", ""),
        ("scope=openid+mcp+openid", "scope=mcp"),
        ("scope=openid2+Openid", "scope=openid2+Openid"),
        ("scope=+", ""),
        ("", ""),
    ],
)
def test_a_form_is_normalized(query: str, expected: str) -> None:
    assert normalized_form(QueryDict(query)).urlencode() == expected


@pytest.mark.django_db
def test_scopes_of_openid_connect_are_ignored_unless_an_administrator_added_them() -> (
    None
):
    """OpenID Connect Core 1.0 5.4, 11"""
    query = QueryDict("scope=openid+profile+email+mcp+address+phone+offline_access")
    assert normalized_form(query)["scope"] == "mcp"
    Scope.objects.create(name="email")
    assert normalized_form(query)["scope"] == "email mcp"
    assert "scope" not in normalized_form(QueryDict("scope=profile+phone"))


def test_the_form_as_sent_stays_as_it_was() -> None:
    sent = QueryDict("scope=offline_access&a=", mutable=True)
    normalized_form(sent)["scope"] = "more"
    assert sent.urlencode() == "scope=offline_access&a="


@pytest.mark.spec("OAuth 2.1 3.1: repeated parameters are an error")
@pytest.mark.parametrize("name", ["scope", "state", "client_id", "resources", "x"])
def test_a_repeated_parameter_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"parameter {name} appears more than once"):
        normalized_form(QueryDict(f"{name}=1&{name}=1"))


@pytest.mark.parametrize("query", ["a=%00", "resource=ok&resource=b%00", "scope=%00"])
def test_a_nul_character_is_refused(query: str) -> None:
    """PostgreSQL cannot store it."""
    with pytest.raises(ValueError, match="NUL"):
        normalized_form(QueryDict(query))


@pytest.mark.parametrize("value", ["1&{}=1", "%00"])
def test_a_long_name_is_cut_in_the_message(value: str) -> None:
    name = "n" * 41
    with pytest.raises(ValueError, match="parameter n{40} "):
        normalized_form(QueryDict(f"{name}={value.format(name)}"))


@pytest.mark.spec("RFC 8707 2: resource is this server")
@pytest.mark.parametrize(
    ("ending", "ours"),
    [
        ([""], True),
        (["/"], True),
        (["", "/"], True),
        ([], True),
        (["x"], False),
        (["/x"], False),
        (["?a=1"], False),
        (["", "x"], False),
        (["x", ""], False),
    ],
    ids=str,
)
def test_a_resource_is_this_endpoint(ending: list[str], ours: bool) -> None:
    query = QueryDict(mutable=True)
    query.setlist("resource", [settings.RESOURCE_URL + end for end in ending])
    text = resource_objection(query)
    assert (text == "") is ours
    assert ours or settings.RESOURCE_URL in text


@pytest.mark.parametrize("case", [str.upper, str.lower])
def test_the_case_of_a_resource_does_not_matter(case: object, settings: object) -> None:
    settings.RESOURCE_URL = "https://Portico.example/MCP"  # type: ignore[attr-defined]
    written = case("https://Portico.example/MCP")  # type: ignore[operator]
    assert resource_objection(QueryDict(f"resource={written}")) == ""
    settings.RESOURCE_URL += "/"  # type: ignore[attr-defined]
    assert resource_objection(QueryDict(f"resource={written}")) == ""
    other = QueryDict("resource=https://portico.example.evil/mcp")
    assert resource_objection(other) != ""
