"""The policy in the admin: export, upload, review, apply."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from accounts.admin_site.navigation.groups import Section
from accounts.admin_site.site import SitePage, site_page
from accounts.admin_site.uploads import SuperusersPage, store_draft, uploaded_file
from accounts.audit.record import record
from accounts.authorization.delegation import NotAllowed
from accounts.imports.problems import StalePreview
from accounts.models import ImportDraft
from mcp_bridge.access.policy_file import apply_policy, export_text, policy_diff


@site_page
class PolicyExportPage(SitePage):
    """GET: the policy as a file, for users who may view everything in it."""

    path = "policy/export/"
    name = "policy-export"
    title = gettext_lazy("Export policy")
    place = (Section.ACCESS, 71)
    permissions = (
        "accounts.view_scope",
        "accounts.view_role",
        "mcp_bridge.view_primitive",
    )
    in_menu = False

    def get(self, request: HttpRequest) -> HttpResponse:
        record("policy.exported", actor=request.user, request=request)
        answer = HttpResponse(export_text(), content_type="application/json")
        name = f"policy-{timezone.now():%Y%m%d-%H%M%S}.json"
        answer["Content-Disposition"] = f'attachment; filename="{name}"'
        return answer


@site_page
class PolicyImportPage(SuperusersPage):
    """GET: the form. POST: a file to compare, or `apply=MARK` for the reviewed one."""

    path = "policy/"
    name = "policy-import"
    title = gettext_lazy("Policy file")
    place = (Section.ACCESS, 70)
    template = "admin/policy.html"

    def get(self, request: HttpRequest) -> HttpResponse:
        return self.page({})

    def post(self, request: HttpRequest) -> HttpResponse:
        if "apply" in request.POST:
            return self.apply(request)
        raw, error = uploaded_file(request)
        if error:
            return self.page({"told": error}, status=400)
        diff = policy_diff(raw)
        if not diff.problems:
            store_draft(request, "policy", raw.decode("utf-8-sig"))
        context = {"diff": diff, "problems": diff.problems}
        return self.page(context, status=400 if diff.problems else 200)

    def apply(self, request: Any) -> HttpResponse:
        """Apply the draft unless the policy changed since the review."""
        draft = ImportDraft.objects.filter(owner=request.user, kind="policy").first()
        if draft is None:
            text = _("Nothing to apply. Choose the file again.")
            return self.page({"told": text}, status=400)
        mark = request.POST["apply"]
        try:
            count = apply_policy(draft.content.encode(), mark, request.user)
        except StalePreview as error:
            return self.page({"told": str(error)}, status=409)
        except NotAllowed as error:
            return self.page({"told": str(error)}, status=403)
        draft.delete()
        message = ngettext(
            "Done: %d item was added or changed.",
            "Done: %d items were added or changed.",
            count,
        )
        messages.success(request, message % count)
        return HttpResponseRedirect(request.path)
