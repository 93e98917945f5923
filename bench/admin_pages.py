"""`python -m bench.admin_pages`: measure every page with many rows.

Crawls from /admin/ and /portal/ as a superuser over HTTP on both databases. It opens
one page of each kind: every form, and every list with each of its filters, orders and
pages. Lists of /api/v1/, searches and the following of the audit are in ASKED.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
from collections import deque
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import parse_qsl, urljoin, urlsplit

import httpx2

from bench import host_info
from bench.databases import Portico, Postgres, postgres
from bench.processes import Server
from bench.report_page import table, write_section
from bench.servers import PORTICO, serving
from tests.support.html_browser import Browser

ROWS = {"users": 100_000, "tokens": 1_000_000, "revoked": 200_000, "audit": 5_000_000}
ROLES, TOOLS = 30, 500
LIMIT = 1.0
COUNTED = """
from django.utils import timezone
from accounts.models import AuditHour
AuditHour.objects.all().roll_up(timezone.now(), seconds=3600)
from accounts.management.commands.purge import Command
Command().analyze()
"""
"""The state of an installation that has run for long: past hours are counted, and
`purge` has collected SQLite's statistics."""
API_TOKEN = """
import os
from datetime import timedelta
from pathlib import Path
from accounts.models import User
from accounts.tokens.issue import issue_personal_token
owner = User.objects.get(username="timekeeper")
_row, raw = issue_personal_token(
    owner, name="pages", scope="portico:admin", lifetime=timedelta(days=30)
)
Path(os.environ["DATA_DIR"], "api_token").write_text(raw)
"""
MOST = 600
CHOICES = {
    "state",
    "use",
    "expiry",
    "kind__exact",
    "issued_via__exact",
    "decision__exact",
    "range",
    "end",
    "factor",
    "show",
    "outcome",
}
"""Filters with few choices: each choice is a separate kind of page."""
TOKENS, AUDIT = "/admin/accounts/issuedtoken/", "/admin/accounts/auditevent/"
TYPED = [
    f"{TOKENS}?client_id=portico",
    f"{TOKENS}?username=user-777",
    f"{TOKENS}?state=active&use=90&kind__exact=personal",
    f"{TOKENS}?issued_via__exact=device&state=revoked&client_id=portico",
    f"{AUDIT}?client_id=portico",
    f"{AUDIT}?actor=user-777",
    f"{AUDIT}?q=tool",
    f"{AUDIT}?q=tool&action=token.issued",
    f"{AUDIT}?action=tool.called",
    f"{AUDIT}?action=tool.called&decision__exact=denied",
    f"{AUDIT}?client_id=portico&action=tool.denied",
    f"{AUDIT}?client_id=client-5&action=tool.denied",
    f"{AUDIT}?object=tool+greet_7&client_id=nobody",
    f"{AUDIT}?client_id=portico&reason=expired&action=tool.denied",
    f"{AUDIT}?object=tool+greet_7&action=request.refused&actor=user-777",
]
"""Typed filters. The hardest match millions of rows alone, and nothing together."""
SEARCH, FOLLOW = "/admin/search/?q=", f"{AUDIT}follow/"
API = "/api/v1/"
ASKED = [
    f"{SEARCH}user-777",
    f"{SEARCH}greet_7",
    f"{SEARCH}family9+given7",
    f"{SEARCH}nothing-like-it",
    f"{SEARCH}9e3779b1",
    f"{SEARCH}user-777&format=json",
    f"{AUDIT}?q=greet_7",
    f"{AUDIT}?q=portico",
    f"{AUDIT}?q=10.0.7.7",
    *(f"{AUDIT}?show=calls&q={word}" for word in ("greet_7", "user-777")),
    f"{AUDIT}?show=denied&object=tool+greet_7",
    f"{AUDIT}?show=changes&actor=user-777",
    f"{AUDIT}?show=failed&client_id=portico",
    *(f"{FOLLOW}?after=4999000&show={show}" for show in ("calls", "denied", "failed")),
    f"{FOLLOW}?after=4999000&q=greet_7",
    f"{FOLLOW}?after=1",
    "/portal/",
    *(
        f"{API}{path}"
        for path in (
            "people/",
            "people/?role=User&limit=200",
            "people/?username=user-777",
            "roles/",
            "assignments/",
            "assignments/?user=user-777",
            "assignments/?role=User",
            "clients/",
            "tools/",
            "upstreams/",
            "tokens/",
            "tokens/?limit=200",
            *(f"tokens/?state={state}" for state in ("active", "expired", "revoked")),
            *(f"tokens/?kind={kind}" for kind in ("access", "refresh", "personal")),
            "tokens/?username=user-777",
            "tokens/?client_id=portico",
            "tokens/?client_id=client-5&state=active",
            "tokens/?username=nobody&state=active",
            "events/",
            "events/?limit=200",
            "events/?actor=user-777",
            "events/?actor=user-777&decision=denied",
            "events/?client_id=portico",
            "events/?client_id=client-5&action=tool.denied",
            "events/?object=tool+greet_7",
            "events/?object=tool+greet_7&actor=user-777",
            "events/?action=tool.called",
            "events/?action=token.issued&actor=user-777",
            "events/?action=no.such",
            "events/?decision=denied",
            "events/?decision=denied&action=message.allowed",
            "events/?token_id=nothing&decision=denied",
            "events/?until=2020-01-01T00:00:00Z",
            "events/?subject=user:7",
            "events/stream/?limit=1000",
            "events/stream/?cursor=2500000&limit=1000",
        )
    ),
]
"""Pages that no link of a page names."""
SKIPPED = re.compile(r"/logout/|/jsi18n/|/password_change/|/autocomplete/|export/")
KEY = re.compile(r"/(\d+|[0-9a-f]{16,32}|_[0-9A-F_]{6,})(?=/)")
NAME, PASSWORD = "timekeeper", "a password nobody guesses 7"


class Links(HTMLParser):
    """Collects the targets of a page's links."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        target = dict(attrs).get("href")
        if tag == "a" and target:
            self.targets.append(target)


def kind_of(path: str, query: str) -> str:
    """The kind of a page: its URL without keys and values."""
    typed = f"{path}?{query}" in (*TYPED, *ASKED)
    names = sorted(
        f"{name}={value}" if typed or name in CHOICES else name
        for name, value in parse_qsl(query, keep_blank_values=True)
    )
    shown = KEY.sub("/*", path)
    return f"{shown}?{'&'.join(names)}" if names else shown


@dataclass
class AdminCrawler:
    """Visits pages, and stores the time that each took."""

    browser: Browser
    seconds: dict[str, float] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)
    where: dict[str, str] = field(default_factory=dict)
    queries: dict[str, tuple[float, str]] = field(default_factory=dict)
    """Kind -> ms and SQL of its slowest query."""

    def run(self) -> None:
        """Visit breadth first, from the index."""
        waiting, known = deque(["/admin/", *TYPED, *ASKED]), {kind_of("/admin/", "")}
        while waiting and len(self.seconds) < MOST:
            url = waiting.popleft()
            page = self.visit(url)
            if urlsplit(url).query:
                continue
            for target in self.links(url, page):
                parts = urlsplit(target)
                kind = kind_of(parts.path, parts.query)
                if kind not in known:
                    known.add(kind)
                    waiting.append(target)

    def links(self, url: str, page: Any) -> list[str]:
        """URLs of further admin pages: links, and two searches per search box."""
        reader = Links()
        reader.feed(page.text)
        urls = [urljoin(url, target) for target in reader.targets]
        base = urlsplit(url).path
        if 'id="searchbar"' in page.text and "?" not in url:
            urls += [f"{base}?q=user-777", f"{base}?q=nothing-like-it"]
        ours = (t for t in urls if t.startswith(("/admin/", "/portal/")))
        return [t.partition("#")[0] for t in ours if not SKIPPED.search(t)]

    def visit(self, url: str) -> Any:
        """Get a page three times, or once if it is very slow; store the median."""
        times: list[float] = []
        page = httpx2.Response(200)
        while len(times) < 3 and sum(times) < 5:
            start = time.monotonic()
            page = self.browser.http.get(url)
            times.append(time.monotonic() - start)
        parts = urlsplit(url)
        kind = kind_of(parts.path, parts.query)
        self.seconds[kind] = median(times)
        self.where[kind] = url
        sql = page.headers.get("X-Slowest-SQL", "")
        self.queries[kind] = float(page.headers.get("X-Slowest-Query", 0)), sql
        if page.status_code != 200:
            self.failed[kind] = page.status_code
        return page


def crawl_pages(portico: Portico) -> AdminCrawler:
    """Serve the database and crawl."""
    app = "config.asgi:application"
    server = Server("Portico", PORTICO, app, portico.folder, portico.environment)
    with serving(server), Browser(server.url) as browser:
        browser.http.timeout = httpx2.Timeout(120)
        browser.sign_in(NAME, PASSWORD)
        raw = (portico.folder / "api_token").read_text()
        browser.http.headers["Authorization"] = f"Bearer {raw}"
        crawl = AdminCrawler(browser)
        crawl.run()
        return crawl


def prepare(folder: Path, vendor: str, database: Postgres) -> Portico:
    """A filled database with a superuser."""
    url = database.create_database("bench_pages") if vendor == "PostgreSQL" else ""
    portico = Portico(folder / f"pages-{vendor}", url, {"BENCH_TOOLS": str(TOOLS)})
    os.environ |= {
        "DJANGO_SUPERUSER_USERNAME": NAME,
        "DJANGO_SUPERUSER_PASSWORD": PASSWORD,
    }
    start = time.monotonic()
    portico.prepare(**ROWS, roles=ROLES)
    portico.run("manage.py", "shell", "-v0", "-c", COUNTED)
    portico.run("manage.py", "shell", "-v0", "-c", API_TOKEN)
    message = f"  {vendor} filled in {time.monotonic() - start:.0f} s"
    print(message, file=sys.stderr, flush=True)
    return portico


def report(crawls: dict[str, AdminCrawler], most: int = 25) -> str:
    """A table of the slowest pages, with the number of all kinds."""
    vendors = list(crawls)
    kinds = {kind for crawl in crawls.values() for kind in crawl.seconds}
    worst = {k: max(c.seconds.get(k, 0) for c in crawls.values()) for k in kinds}
    slow = sorted(kinds, key=lambda kind: -worst[kind])
    rows = []
    for kind in slow[:most]:
        cells = [f"{crawls[v].seconds.get(kind, 0) * 1000:,.0f}" for v in vendors]
        met = "yes" if worst[kind] < LIMIT else "**no**"
        rows.append([f"`{kind}`", *cells, met])
    over = sum(seconds >= LIMIT for seconds in worst.values())
    failed = {k: s for crawl in crawls.values() for k, s in crawl.failed.items()}
    summary = f"{len(kinds)} kinds of page; {over} took a second or more."
    if failed:
        summary += f" Not answered with 200: {failed}."
    head = table(["page", *(f"{v}, ms" for v in vendors), "under a second"], rows)
    return f"{summary} The slowest {min(most, len(kinds))}:\n\n{head}"


def main() -> None:
    """Fill, crawl and write the section; arguments name the databases."""
    vendors = sys.argv[1:] or ["SQLite", "PostgreSQL"]
    crawls: dict[str, AdminCrawler] = {}
    with tempfile.TemporaryDirectory(prefix="portico-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with postgres(folder) as database:
            for vendor in vendors:
                if vendor == "PostgreSQL" and not database.url:
                    continue
                crawls[vendor] = crawl_pages(prepare(folder, vendor, database))
    text = report(crawls)
    print(text)
    counts = ", ".join(f"{count:,} {name}" for name, count in ROWS.items())
    about = f"With {counts} rows, {ROLES} more roles and {TOOLS} tools, as a superuser."
    source = f"Measured {host_info.stamp()}; the median of three requests each."
    section = f"{about} {text}\n\n{source}"
    write_section("pages", section, "The admin with much data")


if __name__ == "__main__":
    main()
