"""Import users and roles: upload, preview, apply with a progress bar."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.contrib import admin
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.template.loader import render_to_string
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.admin_site.site import Section, site_page
from accounts.admin_site.uploads import SuperusersPage, kept_draft, uploaded_file
from accounts.authorization.delegation import NotAllowed
from accounts.http.streaming import run_on_thread, stream_from_thread
from accounts.imports.problems import StalePreview
from accounts.imports.user_csv_apply import apply_users
from accounts.imports.user_csv_plan import COLUMNS, plan_users
from accounts.models import ImportDraft

SHOWN = 200
HERE = "<!-- progress -->"


@site_page
class UserImportPage(SuperusersPage):
    """GET: the form. POST: a file to preview, or `apply=MARK` to apply the preview."""

    path = "users/import/"
    name = "import-users"
    title = gettext_lazy("Import users")
    place = (Section.PEOPLE, 40)
    template = "admin/import_users.html"

    def get(self, request: HttpRequest) -> HttpResponse:
        return self.page({"columns": COLUMNS})

    def post(self, request: HttpRequest) -> Any:
        if "apply" in request.POST:
            return self.apply(request)
        raw, told = uploaded_file(request)
        if told:
            return self.page({"columns": COLUMNS, "told": told}, status=400)
        made = plan_users(raw, request.user)
        if not made.problems:
            kept_draft(request, "users", raw)
        context = {
            "columns": COLUMNS,
            "plan": made,
            "problems": made.problems[:SHOWN],
            "steps": [s for s in made.steps if s.what != "same"][:SHOWN],
            "counts": [(w, made.count(w)) for w in ("add", "change", "same")],
            "todo": made.count("add") + made.count("change"),
            "shown": SHOWN,
        }
        return self.page(context, status=400 if made.problems else 200)

    def apply(self, request: Any) -> Any:
        """Stream a page with the progress."""
        draft = ImportDraft.objects.filter(owner=request.user, kind="users").first()
        if draft is None:
            told = _("There is nothing to apply: choose the file again.")
            return self.page({"columns": COLUMNS, "told": told}, status=400)
        context = {**admin.site.each_context(request), "title": self.title}
        whole = render_to_string("admin/progress.html", context, request)
        before, after = whole.split(HERE)
        mark = request.POST["apply"]

        def parts() -> Iterator[bytes]:
            yield before.encode()
            yield from (part.encode() for part in working(draft, mark, request.user))
            yield after.encode()

        return StreamingHttpResponse(stream_from_thread(parts))


def working(draft: ImportDraft, mark: str, actor: Any) -> Iterator[str]:
    """Paragraphs of progress; CSS shows only the last one, which becomes the result."""
    total = 0
    try:
        raw = draft.content.encode()
        for done, total in run_on_thread(lambda: apply_users(raw, mark, actor)):
            line = '<p><progress max="{}" value="{}"></progress> {}</p>'
            far = _("%(done)d of %(total)d") % {"done": done, "total": total}
            yield format_html(line, max(total, 1), done, far)
    except (StalePreview, NotAllowed) as error:
        yield format_html('<p class="errornote" role="alert">{}</p>', str(error))
    except DatabaseError as error:
        told = _("The database refused (%s). Nothing was changed.") % error
        yield format_html('<p class="errornote" role="alert">{}</p>', told)
    else:
        draft.delete()
        told = _("Done: %d users were added or changed.") % total
        yield format_html('<p class="effect" role="status">{}</p>', told)
