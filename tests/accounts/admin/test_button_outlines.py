"""What every button and bulk action does, compared with `outlines/buttons/`.

The redirect, the messages, the page that follows, and the events. After an intended
change, write the files again with `NEW_OUTLINES=1`, and read the difference.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from tests.support.admin_browser import staff_member
from tests.support.admin_scene import reader_of_pages, set_scene
from tests.support.answer_outline import events_since, newest_event
from tests.support.html_browser import Form
from tests.support.outlines import compare, difference
from tests.support.page_outline import address, outline, steady
from tests.support.page_walk import buttons_on, file_name, is_compared, press, walk

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.usefixtures("no_internet", "without_upstream_servers"),
]
OUTLINES = Path(__file__).parent / "outlines" / "buttons"
MESSAGES = re.compile(r'<ul class="messagelist">(.*?)</ul>', re.S)
ROWS = re.compile(r'name="_selected_action" value="([^"]+)"')
ACTIONS = re.compile(r'<select name="action".*?</select>', re.S)
OPTION = re.compile(r'<option value="([^"]+)"')


def result(page: str, before: str, answer: Any, last: int) -> str:
    """What happened since the event `last`."""
    text = answer.content.decode() if not answer.streaming else ""
    way = [f"-> {address(target)}" for target, _code in answer.redirect_chain]
    shown = [outline(block) for block in MESSAGES.findall(text)]
    if not way:
        changed = difference(outline(before), outline(text))
        shown = [min(changed, outline(text), key=len)]
    lines = [str(answer.status_code), *way, *shown, *events_since(last)]
    return "".join(f"  {line}\n" for line in "\n".join(lines).split("\n") if line)


def trials(page: str, text: str) -> Iterator[tuple[str, Form, Any]]:
    """(name, form, button); each bulk action with the rows of the list.

    Without the last row: of all users, the last superuser would be refused.
    """
    offered = [o for block in ACTIONS.findall(text) for o in OPTION.findall(block)]
    for kind, form, button in buttons_on(page, text):
        if "action" not in form.fields or button[0] != "index":
            yield f"{kind}={button[1][:40]}", form, button
            continue
        for action in dict.fromkeys(offered):
            chosen = deepcopy(form)
            rows = ROWS.findall(text)
            chosen.fields |= {"action": action, "_selected_action": rows[:-1] or rows}
            yield f"{kind} {action}", chosen, button


def outcome(browser: Client, page: str, text: str, form: Form, button: Any) -> str:
    """What the button does, and the first one of a page that asks again."""
    number, found = newest_event(), list[str]()

    def read(answer: Any) -> None:
        found.append(result(page, text, answer, number))
        if answer.redirect_chain or answer.streaming or answer.status_code != 200:
            return
        asked = answer.content.decode()
        again = [one for one in buttons_on(page, asked) if one[1].fields != form.fields]
        if "_selected_action" in form.fields and again:
            _kind, second, pushed = again[0]
            press(
                browser,
                page,
                second,
                pushed,
                lambda done: found.append(result(page, asked, done, number)),
                follow=True,
            )

    press(browser, page, form, button, read, follow=True)
    return "  then\n".join(found)


def test_buttons_do_what_they_did() -> None:
    """Of a superuser; nothing is kept, so each starts from the same rows."""
    set_scene()
    browser = reader_of_pages(staff_member("root", superuser=True))
    known, found = set[str](), dict[str, str]()
    for path, _answer, text in walk(browser, "/admin/", "/portal/"):
        if not text or not is_compared(path):
            continue
        for name, form, button in trials(path, text):
            if name not in known:
                known.add(name)
                done = outcome(browser, path, text, form, button)
                file = file_name(path)
                found[file] = found.get(file, "") + f"{steady(name)}\n{done}\n"
    compare(found, OUTLINES)
