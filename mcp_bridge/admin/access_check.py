"""The access check: who can call what and why, by the rule that decides messages."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django import forms
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.utils.translation import gettext_lazy as _
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables

from accounts.admin.people.invitations import grantable_roles
from accounts.admin.people.role_changes import GIVE
from accounts.admin.tokens.revoked_tokens import find_pasted_token
from accounts.admin_site.base import may
from accounts.admin_site.navigation.groups import Section
from accounts.admin_site.site import SitePage, row_cell, row_link, site_page
from accounts.models import AuditEvent, IssuedToken, Role, RoleAssignment, User
from accounts.parsing.end_choice_field import DURATIONS
from accounts.parsing.json_form_field import JSONFormField
from accounts.parsing.row_ids import row_id
from accounts.tokens.principal import Principal, Unauthenticated
from mcp_bridge.access import explain
from mcp_bridge.access.catalogue import read_catalogue
from mcp_bridge.access.decision import Reason, judge
from mcp_bridge.access.explain import decision_in_words
from mcp_bridge.admin.argument_rules import has_arguments, rule_with_role
from mcp_bridge.admin.upstreams.review import state_badges
from mcp_bridge.models import Primitive, PrimitiveKind

VIEW_TOKENS = "accounts.view_issuedtoken"
MAX_HOLDERS = 100
"""Users listed for one primitive."""


class PrimitiveField(forms.ModelChoiceField):  # type: ignore[type-arg]
    """A primitive; the label says why nobody can use it."""

    def __init__(self, **kwargs: Any) -> None:
        rows = Primitive.objects.select_related("upstream")
        super().__init__(rows.defer("accepted", "offered"), required=False, **kwargs)

    def label_from_instance(self, obj: Any) -> str:
        return f"{obj} ({obj.obstacle})" if obj.obstacle else str(obj)


class CheckForm(forms.Form):
    """User and primitive; either may stay empty."""

    user = forms.CharField(
        required=False,
        label=_("Username"),
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )
    jti = forms.CharField(required=False, widget=forms.HiddenInput)
    primitive = PrimitiveField(
        empty_label=_("all"), label=_("Tool, resource or prompt")
    )

    def clean_user(self) -> User | None:
        name = self.cleaned_data["user"].strip()
        user = User.objects.all().named(name) if name else None
        if name and user is None:
            raise forms.ValidationError(
                _("There is no user called %s. Check the username.") % name
            )
        return user

    def clean_jti(self) -> IssuedToken | None:
        jti = self.cleaned_data["jti"]
        token = IssuedToken.objects.filter(jti=jti).first() if jti else None
        if jti and token is None:
            raise forms.ValidationError(_("No token has this ID. Check the ID."))
        return token


class ArgumentsForm(CheckForm):
    """The same with the arguments of a call, which never are in a URL."""

    user = forms.CharField(required=False, widget=forms.HiddenInput)
    primitive = PrimitiveField(widget=forms.HiddenInput)
    arguments = JSONFormField(
        required=False,
        label=_("Arguments of a call (JSON)"),
        widget=forms.Textarea(
            attrs={"rows": 3, "autocomplete": "off", "placeholder": '{"amount": 100}'}
        ),
        error_messages={
            "invalid": _('This is not JSON. Write it like {"amount": 100}.')
        },
    )

    def clean_arguments(self) -> dict[str, Any] | None:
        arguments = self.cleaned_data["arguments"]
        if arguments is not None and not isinstance(arguments, dict):
            text = _('Arguments are a JSON object, such as {"amount": 100}.')
            raise forms.ValidationError(text)
        return arguments


class PasteForm(forms.Form):
    """A whole token or its id; only the id is used."""

    token = forms.CharField(
        label=_("Token or token ID"),
        widget=forms.Textarea(attrs={"rows": 2, "autocomplete": "off"}),
        help_text=_(
            "Only the token ID is used. The token is never displayed or stored."
        ),
    )

    def clean_token(self) -> str:
        """The id of the token."""
        row = find_pasted_token("".join(self.cleaned_data["token"].split()))
        if row is None:
            raise forms.ValidationError(
                _(
                    "This is neither a token issued here nor a token ID. Check "
                    "what you pasted."
                )
            )
        return row.jti


@site_page
class AccessCheck(SitePage):
    """GET checks a user, a token id or a primitive; POST a token or arguments."""

    path, name = "access/check/", "access_check"
    title = _("Access check")
    place = (Section.ACCESS, 50)
    permissions = (
        "accounts.view_user",
        "accounts.view_role",
        "mcp_bridge.view_primitive",
    )
    template = "admin/access_check.html"

    def get(self, request: HttpRequest) -> HttpResponse:
        """Decisions, the rule behind each, and the fix for refusals.

        Raises PermissionDenied for events and tokens of lists that the user may not
        view: otherwise ids could be enumerated here.
        """
        event = request.GET.get("event", "")
        if event and not may(request, "accounts.view_auditevent"):
            raise PermissionDenied
        if request.GET.get("jti") and not may(request, VIEW_TOKENS):
            raise PermissionDenied
        if row_id(event):
            return self.of_event(event)
        form = CheckForm(request.GET or None)
        shown: dict[str, Any] = {"form": form}
        if form.is_bound and form.is_valid():
            shown |= check_result(**form.cleaned_data)
            asked = {name: request.GET.get(name, "") for name in form.fields}
            shown["arguments_form"] = ArgumentsForm(initial=asked)
        return self.show(shown)

    def show(self, shown: dict[str, Any], status: int = 200) -> HttpResponse:
        """The page without what the user may not view."""
        shown |= {
            "gifts": roles_to_give(self.request, shown),
            "durations": DURATIONS[:3],
            "try_url": own_try_url(self.request, shown.get("primitive")),
        }
        if not may(self.request, "accounts.view_roleassignment"):
            # Viewing users shows their roles, but neither expiry nor reasons.
            shown |= {"held": None, "holders": None}
        return self.page({"paste": self.paste_form(), **shown}, status)

    def with_arguments(self, request: HttpRequest) -> HttpResponse:
        """The decision about a call; mistakes keep what was entered."""
        form = ArgumentsForm(request.POST)
        valid = form.is_valid()
        data = form.cleaned_data
        names = ("user", "jti", "primitive", "arguments")
        result = check_result(**{name: data.get(name) for name in names})
        shown = {"form": CheckForm(request.POST), "arguments_form": form, **result}
        return self.show(shown, 200 if valid else 400)

    def paste_form(self) -> PasteForm | None:
        """The form, if the user may view tokens."""
        return PasteForm() if may(self.request, VIEW_TOKENS) else None

    def of_event(self, key: str) -> HttpResponse:
        """Redirect to the check of the token or user of an audit event."""
        event = AuditEvent.objects.filter(pk=key).first()
        links = of_event(self.request, event) if event is not None else []
        return HttpResponseRedirect(links[0][1] if links else self.request.path)

    @method_decorator(sensitive_post_parameters("token", "arguments"))
    @method_decorator(sensitive_variables())
    def post(self, request: HttpRequest) -> HttpResponse:
        """Redirect to the page with the token's id, or check arguments."""
        pasted = "arguments" not in request.POST
        if (pasted or request.POST.get("jti")) and not may(request, VIEW_TOKENS):
            raise PermissionDenied
        if not pasted:
            return self.with_arguments(request)
        paste = PasteForm(request.POST)
        if not paste.is_valid():
            # Not the bound form: it would write the token into the page.
            shown = {"form": CheckForm(), "paste": PasteForm()}
            errors = list(paste.errors.values())
            return self.page({**shown, "paste_errors": errors}, status=400)
        query = {"jti": paste.cleaned_data["token"]}
        if row_id(request.POST.get("primitive", "")):
            query["primitive"] = request.POST["primitive"]
        return HttpResponseRedirect(
            f"{reverse('admin:access_check')}?{urlencode(query)}"
        )


def check_result(
    user: User | None,
    jti: IssuedToken | None,
    primitive: Primitive | None,
    arguments: Any = None,
) -> dict[str, Any]:
    """Template context for the form's values."""
    shown: dict[str, Any] = {"primitive": primitive, "token": jti}
    if primitive is not None:
        rules = primitive.argument_rules.select_related("role")
        shown |= {
            "badges": state_badges(primitive),
            "roles": explain.covering_roles(primitive),
            "argument_rules": [rule_with_role(rule) for rule in rules],
            "has_arguments": has_arguments(primitive),
            "with_arguments": arguments is not None,
        }
    if user is None and jti is None:
        return shown | role_holders(primitive)
    shown["person"] = who = user or (jti.user if jti else None)
    try:
        if jti is not None:
            principal = explain.token_principal(jti)
        else:
            principal = explain.user_principal(user)  # type: ignore[arg-type]
    except Unauthenticated as why:
        return shown | {"refused": explain.refusal_text(why)}
    assignments = (
        RoleAssignment.objects.unexpired().filter(user=who).select_related("role")
    )
    return shown | {
        "held": assignments,
        "verdicts": verdicts(principal, primitive, arguments),
    }


def roles_to_give(request: Any, shown: dict[str, Any]) -> list[Role]:
    """Roles that would lift the refusal, and that the reader may give to the person."""
    person: Any = shown.get("person")
    primitive: Any = shown.get("primitive")
    reasons = {one["decision"].reason for one in shown.get("verdicts", ())}
    lacking = primitive is not None and Reason.ROLE_LACKS_SCOPE in reasons
    if person is None or not lacking or not may(request, GIVE):
        return []
    mine = set(grantable_roles(request.user, person))
    return [role for role in explain.covering_roles(primitive) if role in mine]


def own_try_url(request: Any, primitive: Primitive | None) -> str:
    """Where the reader can call the tool with their own account; empty if nowhere.

    Nobody calls a tool as somebody else: this page only says what would be decided.
    """
    if primitive is None or primitive.kind != PrimitiveKind.TOOL:
        return ""
    rule = read_catalogue().get((primitive.kind, primitive.name))
    me = explain.with_every_scope(request.user)
    if rule is None or not judge(me, rule).allowed:
        return ""
    return reverse("portal-try", query={"name": primitive.name})


def role_holders(primitive: Primitive | None) -> dict[str, Any]:
    """Users with a role that grants the primitive."""
    if primitive is None:
        return {}
    assignments = explain.holders(primitive)
    return {
        "holders": assignments[:MAX_HOLDERS],
        "holder_count": assignments.values("user").distinct().count(),
    }


def verdicts(
    principal: Principal, primitive: Primitive | None, arguments: Any = None
) -> list[dict[str, Any]]:
    """Decisions with explanations, allowed ones first."""
    catalogue = read_catalogue()
    keys = {(p.kind, p.name): p.pk for p in Primitive.objects.only("kind", "name")}
    key = (primitive.kind, primitive.name) if primitive else None
    sent = arguments if primitive else None
    results = [
        explain.verdict(principal, rule, catalogue, sent)
        for rule in explain.rules(catalogue, key)
    ]
    return [
        {
            "rule": one.rule,
            "kind": PrimitiveKind(one.rule.kind).label,
            "pk": keys.get(one.rule.key),
            "decision": one.decision,
            "why": decision_in_words(one.decision.via),
            "limits": explain.limits_of(principal, one.rule),
            "remedy": explain.remedy(one.decision, one.rule),
        }
        for one in sorted(results, key=lambda v: not v.decision.allowed)
    ]


def access_check_url(request: HttpRequest, **query: Any) -> list[tuple[Any, str]]:
    """A button to the page with these values, if the user may open it."""
    if not AccessCheck.allowed(request):
        return []
    return [(_("Access check"), f"{reverse('admin:access_check')}?{urlencode(query)}")]


@row_link(User)
def of_user(request: HttpRequest, user: User) -> list[tuple[Any, str]]:
    return access_check_url(request, user=user.username)


@row_link(Primitive)
def of_primitive(request: HttpRequest, primitive: Primitive) -> list[tuple[Any, str]]:
    return access_check_url(request, primitive=primitive.pk)


@row_link(IssuedToken)
def of_token(request: HttpRequest, token: IssuedToken) -> list[tuple[Any, str]]:
    return access_check_url(request, jti=token.jti) if token.kind != "refresh" else []


@row_link(AuditEvent)
def of_event(request: HttpRequest, event: AuditEvent) -> list[tuple[Any, str]]:
    """Link to the current decision about the event's message."""
    kind, _space, name = event.object.partition(" ")
    target = Primitive.objects.filter(kind=kind, name=name).first()
    known = IssuedToken.objects.filter(jti=event.token_id).exclude(kind="refresh")
    query: dict[str, Any] = {"primitive": target.pk} if target else {}
    if event.token_id and may(request, VIEW_TOKENS) and known.exists():
        return access_check_url(request, jti=event.token_id, **query)
    if target and event.actor:
        return access_check_url(request, user=event.actor, **query)
    return []


@row_cell(AuditEvent)
def event_reason(request: HttpRequest, event: AuditEvent) -> tuple[Any, str] | None:
    """Link beside each refusal of the audit log."""
    refused = event.decision == AuditEvent.Verdict.DENIED and event.token_id
    if not refused or not AccessCheck.allowed(request):
        return None
    return _("why?"), f"{reverse('admin:access_check')}?event={event.pk}"


@row_link(Role)
def of_role(request: HttpRequest, role: Role) -> list[tuple[Any, str]]:
    if not AccessCheck.allowed(request):
        return []
    return [(_("Access matrix"), f"{reverse('admin:access_matrix')}?role={role.pk}")]
