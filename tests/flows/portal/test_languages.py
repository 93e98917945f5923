"""Languages: pages are translated, texts for programs are English."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from accounts.models import AuditEvent, RoleAssignment, User
from tests.support.html_browser import Browser
from tests.support.mcp_client import HTTP
from tests.support.oauth_client import authorize_url, register_client
from tests.support.server import Portico
from tests.support.users import PASSWORD

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("default_users")]
KOREAN = {"Accept-Language": "ko-KR,ko;q=0.9,en;q=0.5"}
LOGIN = "/accounts/login/"


@pytest.fixture
def reader(server: Portico) -> Iterator[Browser]:
    """A user whose browser asks for Korean."""
    with Browser(server.url) as browser:
        browser.http.headers.update(KOREAN)
        yield browser


def signed_in(browser: Browser, name: str, path: str = "/portal/") -> Browser:
    """The page after sign-in."""
    browser.open(path)
    return browser.submit(browser.form("password"), login=name, password=PASSWORD)


def test_a_page_uses_the_browsers_language(reader: Browser) -> None:
    """RFC 9110 12.5.4; the page declares `lang` and Content-Language."""
    reader.open(LOGIN)
    assert '<html lang="ko">' in reader.page.text and "비밀번호" in reader.page.text
    assert reader.page.headers["content-language"] == "ko"
    assert "Accept-Language" in reader.page.headers["vary"]
    del reader.http.headers["Accept-Language"]
    assert '<html lang="en">' in reader.open(LOGIN).page.text
    reader.http.headers["Accept-Language"] = "fr, *;q=0.1"
    assert "Password" in reader.open(LOGIN).page.text


def test_a_chosen_language_is_kept_and_returns_to_the_page(reader: Browser) -> None:
    """The button works without JavaScript and overrides Accept-Language."""
    reader.open(f"{LOGIN}?next=/portal/tokens/")
    reader.submit(reader.form("language"), "language")
    assert str(reader.page.url).endswith(f"{LOGIN}?next=/portal/tokens/")
    assert '<html lang="en">' in reader.page.text
    cookies = str(reader.page.history[0].headers.get_list("set-cookie"))
    assert "portico_language=en" in cookies and "HttpOnly" in cookies
    assert "SameSite=Lax" in cookies
    assert "Admin" in signed_in(reader, "carol").page.text
    assert 'lang="en"' in reader.open("/admin/").page.text
    reader.submit(reader.form("language"), "language")
    assert 'lang="ko"' in reader.page.text and "개요" in reader.page.text


def test_a_language_choice_redirects_to_no_other_site(reader: Browser) -> None:
    """`next` is a path of this server; other values are ignored."""
    form = reader.open(LOGIN).form("language")
    reader.http.follow_redirects = False
    reader.submit(form, "language", next="https://elsewhere.example/")
    assert reader.page.headers["location"].startswith(("/", str(reader.http.base_url)))
    reader.submit(form, language="ko", csrfmiddlewaretoken="x" * 64)
    assert reader.page.status_code == 403 and "page has expired" in reader.page.text


def test_programs_are_answered_in_english(server: Portico, reader: Browser) -> None:
    """RFC 6749 5.2: error_description is ASCII in every language."""
    api = f"{server.url}/api/token/"
    response = HTTP.post(api, data={"username": "alice"}, headers=KOREAN)
    assert (
        response.status_code == 400
        and "required" in response.json()["error_description"]
    )
    assert "content-language" not in response.headers
    form = {"grant_type": "authorization_code", "code": "a"}
    token = HTTP.post(f"{server.url}/oauth/token?x=1", data=form, headers=KOREAN)
    assert token.json()["error_description"].isascii()


def test_an_error_page_is_translated_and_its_link_is_ascii(
    server: Portico, reader: Browser
) -> None:
    """RFC 6749 4.1.2.1: the client gets ASCII, the user a translation."""
    signed_in(reader, "alice")
    client = register_client(server)["client_id"]
    reader.open(authorize_url(server, client, response_mode="fragment")[0])
    assert "response_mode는 query여야 합니다." in reader.page.text
    link = next(p for p in reader.page.text.split('"') if "/callback?" in p)
    query = parse_qs(urlsplit(link.replace("&amp;", "&")).query)
    assert query["error_description"] == ["response_mode must be query."]


def test_consent_shows_scopes_in_the_users_language(
    server: Portico, reader: Browser
) -> None:
    """The built-in scope descriptions are translated."""
    signed_in(reader, "alice")
    client = register_client(server, client_name="편집기")["client_id"]
    page = reader.open(
        authorize_url(server, client, scope="mcp User.Write")[0]
    ).page.text
    assert "“편집기”에서 접근 권한을 요청합니다" in page
    assert "데이터를 변경합니다." in page and "User.Write" in page


def test_the_audit_is_english_in_every_language(
    server: Portico, reader: Browser
) -> None:
    """All readers share one log; filters and exports match its text."""
    signed_in(reader, "carol", "/admin/")
    bob = User.objects.get(username="bob")
    assignment = RoleAssignment.objects.get(user=bob, role__name="Guest")
    path = f"/admin/accounts/roleassignment/{assignment.pk}/change/"
    page = reader.open(path).page.text
    assert "bob의 Guest 역할" in page
    reader.save(path, reason="이유")
    event: Any = AuditEvent.objects.filter(action="role.extended").first()
    assert event.object == "bob has Guest" and event.changes == {"reason": ["", "이유"]}


def test_a_missing_page_is_a_translated_404(reader: Browser) -> None:
    """The 404 is translated and links to another page."""
    signed_in(reader, "alice")
    reader.open("/portal/nothing/")
    assert reader.page.status_code == 404 and "찾을 수 없습니다" in reader.page.text
