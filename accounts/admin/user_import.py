"""Import users and roles: upload, preview, apply with a progress bar."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

from django.contrib import admin
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.template.loader import render_to_string
from django.utils import timezone, translation
from django.utils.html import format_html
from django.utils.translation import get_language, gettext_lazy, ngettext
from django.utils.translation import gettext as _
from django.views.decorators.debug import sensitive_variables

from accounts.admin.people.invitations import shown_links
from accounts.admin_site.navigation.groups import Section
from accounts.admin_site.site import site_page
from accounts.admin_site.uploads import SuperusersPage, store_draft, uploaded_file
from accounts.authentication.invitations import mail_configured
from accounts.authorization.delegation import NotAllowed
from accounts.authorization.invitations import invite_imported
from accounts.http.streaming import run_on_thread, stream_from_thread
from accounts.imports.problems import StalePreview
from accounts.imports.spreadsheets import spreadsheet_text
from accounts.imports.user_csv_apply import apply_users
from accounts.imports.user_csv_plan import COLUMNS, parse_csv, plan_text
from accounts.models import ImportDraft
from accounts.models.audit.origins import origin_var

T = TypeVar("T")

MAX_ROWS = 200
PROGRESS_PLACE = "<!-- progress -->"


@site_page
class UserImportPage(SuperusersPage):
    """GET: the form. POST: a file to preview, or `apply=MARK` to apply the preview."""

    path = "users/import/"
    name = "import-users"
    title = gettext_lazy("Import users")
    place = (Section.PEOPLE, 40)
    template = "admin/import_users.html"

    def get(self, request: HttpRequest) -> HttpResponse:
        return self.page({})

    def page(self, context: dict[str, Any], status: int = 200) -> HttpResponse:
        return super().page({"columns": COLUMNS, **context}, status)

    def post(self, request: HttpRequest) -> Any:
        if "apply" in request.POST:
            return self.apply(request)
        raw, error = uploaded_file(request)
        if error:
            return self.page({"told": error}, status=400)
        text, problems = spreadsheet_text(raw)
        plan = plan_text(text, problems, request.user)
        if not plan.problems:
            store_draft(request, "users", text)
        context = {
            "plan": plan,
            "problems": plan.problems[:MAX_ROWS],
            "steps": [s for s in plan.steps if s.what != "same"][:MAX_ROWS],
            "counts": [(w, plan.count(w)) for w in ("add", "change", "same")],
            "todo": plan.count("add") + plan.count("change"),
            "shown": MAX_ROWS,
            "mail_configured": mail_configured(),
        }
        return self.page(context, status=400 if plan.problems else 200)

    def apply(self, request: Any) -> Any:
        """Stream a page with the progress."""
        draft = ImportDraft.objects.filter(owner=request.user, kind="users").first()
        if draft is None:
            error = _("Nothing to apply. Choose the file again.")
            return self.page({"told": error}, status=400)
        context = {**admin.site.each_context(request), "title": self.title}
        whole = render_to_string("admin/progress.html", context, request)
        before, after = whole.split(PROGRESS_PLACE)
        mark, reader = request.POST["apply"], Reader()
        inviting = "invite" in request.POST

        def parts() -> Iterator[bytes]:
            yield before.encode()
            for part in progress_paragraphs(
                draft, mark, request.user, reader, inviting=inviting
            ):
                yield part.encode()
            yield after.encode()

        return StreamingHttpResponse(stream_from_thread(parts))


class Reader:
    """What a separate thread must know about the request: origin, zone, language.

    The plan that is applied must be the one that was shown, dates included.
    """

    def __init__(self) -> None:
        self.origin = origin_var.get()
        self.zone, self.language = timezone.get_current_timezone(), get_language()

    def run(self, steps: Iterator[T]) -> Iterator[T]:
        """Yield the steps, all of them on the thread of the first."""
        token = origin_var.set(self.origin)
        try:
            with timezone.override(self.zone), translation.override(self.language):
                yield from steps
        finally:
            origin_var.reset(token)


def progress_paragraphs(
    draft: ImportDraft,
    mark: str,
    actor: Any,
    reader: Reader | None = None,
    *,
    inviting: bool = False,
) -> Iterator[str]:
    """Paragraphs of progress; CSS shows only the last one, which becomes the result."""
    total, reader = 0, reader or Reader()
    raw = draft.content.encode()
    try:

        def steps() -> Iterator[tuple[int, int]]:
            return reader.run(apply_users(raw, mark, actor))

        for count, total in run_on_thread(steps):
            line = '<p><progress max="{}" value="{}"></progress> {}</p>'
            text = _("%(done)d of %(total)d") % {"done": count, "total": total}
            yield format_html(line, max(total, 1), count, text)
    except (StalePreview, NotAllowed) as error:
        yield format_html('<p class="errornote" role="alert">{}</p>', str(error))
    except DatabaseError as error:
        message = (
            _("The database rejected the import (%s). Nothing was changed.") % error
        )
        yield format_html('<p class="errornote" role="alert">{}</p>', message)
    else:
        draft.delete()
        message = ngettext(
            "Done: %d user was added or changed.",
            "Done: %d users were added or changed.",
            total,
        )
        yield format_html('<p class="effect" role="status">{}</p>', message % total)
        if inviting:
            yield links_of_import(raw, actor, reader)


@sensitive_variables("links")
def links_of_import(raw: bytes, actor: Any, reader: Reader) -> str:
    """Invite the people of the file; a table of their links."""
    people = [row.username for row in parse_csv(raw)[0]]

    def work() -> Iterator[dict[str, Any]]:
        issued = invite_imported(people, actor=actor)
        return reader.run(link for one in issued for link in shown_links([one]))

    links = list(run_on_thread(work))
    return render_to_string("admin/invited.html", {"links": links})
