"""`/admin/search/?q=`: a page, and with `format=json` the data of the overlay."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.admin_site.navigation.groups import Section
from accounts.admin_site.search.kinds import FoundKind, Result, find
from accounts.admin_site.site import SitePage, site_page

LONGEST_WORD = 100
"""Characters of a search. It is in a URL, so a pasted token must not fit."""
UNUSABLE = ("Cc", "Cs")
"""Unicode categories of characters that no name has and PostgreSQL may refuse."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The results, or what is wrong with the search."""

    word: str
    found: list[FoundKind] = field(default_factory=list)
    problem: str = ""

    @property
    def status(self) -> int:
        return 400 if self.problem else 200

    @property
    def message(self) -> str:
        """One sentence for the reader, if there are no results."""
        if self.problem or self.found:
            return self.problem
        return _("Nothing matches.") if self.word else hint()


def hint() -> str:
    return _(
        "Find people, tools, roles, clients, tokens and pages by name, or paste "
        "a token ID or request ID."
    )


def search_answer(request: HttpRequest) -> Answer:
    """What the search finds for the text in `q`."""
    word = " ".join(request.GET.get("q", "").split())
    problem = objection_to_word(word)
    if problem or not word:
        return Answer(word[:LONGEST_WORD], problem=problem)
    return Answer(word, find(request, word))


def objection_to_word(word: str) -> str:
    """What is wrong with the text, and the fix; empty if nothing is."""
    if len(word) > LONGEST_WORD:
        text = _("The search is too long. Enter at most %d characters.")
        return text % LONGEST_WORD
    if any(unicodedata.category(character) in UNUSABLE for character in word):
        return _("The search contains control characters. Remove them.")
    return ""


@site_page
class SearchPage(SitePage):
    """Results that this user may view; the site admits staff only."""

    path, name, title = "search/", "search", gettext_lazy("Search")
    place = (Section.OVERVIEW, 90)
    for_all_staff = True
    template = "admin/search.html"
    in_menu = False

    def get(self, request: HttpRequest) -> HttpResponse:
        answer = search_answer(request)
        if request.GET.get("format") == "json":
            return JsonResponse(answer_data(answer), status=answer.status)
        context = {"answer": answer, "longest": LONGEST_WORD}
        return self.page(context, status=answer.status)


def answer_data(answer: Answer) -> dict[str, Any]:
    """{"q", "message", "groups": [{"label", "results": [...]}]}."""
    return {
        "q": answer.word,
        "message": answer.message,
        "groups": [
            {"label": one.label, "results": [result_data(r) for r in one.results]}
            for one in answer.found
        ],
    }


def result_data(result: Result) -> dict[str, Any]:
    """{"title", "detail", "url", "links": [{"title", "url"}]}."""
    links = [{"title": text, "url": url} for text, url in result.links]
    return {
        "title": result.title,
        "detail": result.detail,
        "url": result.url,
        "links": links,
    }
