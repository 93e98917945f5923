"""docs/clients/: a page for each client, with the instructions of the portal.

`python -m tests.tools.client_pages` writes the pages; with --check it only compares.
"""

from __future__ import annotations

import sys
from pathlib import Path

from accounts.http.help.links import slug
from mcp_bridge.portal.client_setup import Snippet, snippets

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / "docs" / "clients"
URL = "https://portico.example/mcp"
ABOUT = f"""The address of Portico is `{URL}` here. *Connect* in the portal
shows these instructions with your address, and when the client was last used."""
BROWSER = """The client opens the browser. Sign in and allow it. Later it renews its
access by itself, until you or an administrator revoke it."""
TOKEN = """For scripts, and for clients that cannot open a browser. Create the token in
the portal under *Personal tokens*; it is shown once."""
PUT = {
    "YOUR_TOKEN": "Put it in place of `YOUR_TOKEN`.",
    "PORTICO_TOKEN": "Set it as `PORTICO_TOKEN` in the environment of the client.",
    "promptString": "The client asks for it and stores it.",
}
"""A part of the instructions -> where the token goes."""
VENDOR = """This client connects from the servers of its vendor, so Portico needs a
public https address."""
CHECK = """## Check that it works

Call `whoami`, or a tool of your team. *Connect* in the portal then says that the client
is connected, and *Activity* in the admin shows the call.

| what you see | why, and what to do |
| --- | --- |
{rows}

[Connecting clients](../connecting.md) describes every way to get a token."""
PROBLEMS = {
    "the sign-in ends with an error": (
        "The document of a client cannot be used",
        "A redirect URI does not match",
        "A client cannot register",
    ),
    "401": ("A token is refused",),
    "403": ("A token lacks a scope",),
    "429": ("Too many requests",),
    "a tool is missing or unknown": ("A tool is unknown",),
}
"""What the client shows -> sections of docs/troubleshooting.md."""


def problems() -> str:
    """The rows of the table of problems."""
    return "\n".join(
        f"| {seen} | {'; '.join(linked(title) for title in titles)} |"
        for seen, titles in PROBLEMS.items()
    )


def linked(title: str) -> str:
    return f"[{title}](../troubleshooting.md#{slug(title)})"


def language_of(text: str) -> str:
    """The language of an example, for its colours."""
    if text.startswith("{"):
        return "json"
    if text.startswith("["):
        return "toml"
    if text.startswith("extensions:"):
        return "yaml"
    return "text" if text.startswith("https:") else "sh"


def fenced(text: str) -> str:
    return f"```{language_of(text)}\n{text}\n```"


def page(snippet: Snippet) -> str:
    """The page of one client."""
    place = snippet.place[:1].upper() + snippet.place[1:]
    parts = [f"# {snippet.client}", ABOUT, f"Where: {place}."]
    if snippet.note:
        parts.append(VENDOR)
    if snippet.sign_in:
        parts += ["## Sign in with the browser", fenced(snippet.sign_in), BROWSER]
    if snippet.with_token:
        where = next(text for part, text in PUT.items() if part in snippet.with_token)
        text = f"{TOKEN} {where}"
        parts += ["## With a personal token", fenced(snippet.with_token), text]
    return "\n\n".join([*parts, CHECK.replace("{rows}", problems())]) + "\n"


def pages() -> dict[Path, str]:
    """File -> text, of every client."""
    return {FOLDER / f"{one.slug}.md": page(one) for one in snippets(URL)}


def main(arguments: list[str]) -> int:
    """Write the pages, or name those that are stale; returns their number."""
    made = pages()
    stale = [p for p, text in made.items() if not p.exists() or p.read_text() != text]
    if "--check" in arguments:
        for path in stale:
            print(f"{path.name} is stale: run python -m tests.tools.client_pages")
        return len(stale)
    FOLDER.mkdir(exist_ok=True)
    for path in stale:
        path.write_text(made[path])
    return 0


if __name__ == "__main__":
    import os

    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    django.setup()
    sys.exit(main(sys.argv[1:]))
