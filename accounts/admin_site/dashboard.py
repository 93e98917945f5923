"""The dashboard: notices, and statistics with links to the audit log."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from accounts.admin_site.charts import Chart, Rate, Series, chart, percent
from accounts.admin_site.notices import notices
from accounts.admin_site.overview.checklist import checklist
from accounts.audit.reasons import REASONS
from accounts.audit.statistics import (
    ISSUED,
    MOST_LIVE,
    REVOKED,
    SIGN_IN_FAILED,
    SIGNED_IN,
    SPANS,
    Slot,
    Statistics,
    Top,
    gather_statistics,
)
from accounts.models import OAuthClient
from accounts.models.audit.rollups import Facet

Query = dict[str, str]
CALLS: Query = {"action": "tool.called"}
CHARTS: list[tuple[str, Any, list[Series]]] = [
    (
        "messages",
        _("Tool calls and denials"),
        [
            Series("succeeded", _("succeeded"), "", {**CALLS, "outcome": "ok"}),
            Series("failed", _("failed"), "warn", {**CALLS, "outcome": "error"}),
            Series("refusals", _("denied"), "bad", {"decision__exact": "denied"}),
        ],
    ),
    (
        "tokens",
        _("Tokens issued and revoked"),
        [
            Series(ISSUED, _("issued"), "", {"action": ISSUED}),
            Series(REVOKED, _("revoked"), "quiet", {"action": REVOKED}),
        ],
    ),
    (
        "sign-ins",
        _("Sign-ins"),
        [
            Series(SIGNED_IN, _("signed in"), "", {"action": SIGNED_IN}),
            Series(SIGN_IN_FAILED, _("failed"), "bad", {"action": SIGN_IN_FAILED}),
        ],
    ),
]
RATES = {"messages": Rate(_("error rate"), ("failed",), ("succeeded", "failed"))}
LISTS: list[tuple[str, Any, str]] = [
    (Facet.OBJECT, _("Top tools, resources and prompts"), "object"),
    (Facet.ACTOR, _("Top users"), "actor"),
    (Facet.CLIENT, _("Top clients"), "client_id"),
    (Facet.REASON, _("Reasons for denial"), "reason"),
]


def dashboard_context(request: HttpRequest) -> dict[str, Any]:
    """Context of the admin's index page for this user."""
    shown: dict[str, Any] = {
        "notices": notices(request),
        "steps": checklist(request),
    }
    if request.user.has_perm("accounts.view_auditevent"):
        span = SPANS.get(request.GET.get("range", ""), SPANS["24h"])
        shown |= figures(gather_statistics(span, timezone.now()))
    return shown


def figures(statistics: Statistics) -> dict[str, Any]:
    """Statistics, for users who may read the audit."""
    return {
        "spans": [(key, key == statistics.span.key) for key in SPANS],
        "cards": cards(statistics),
        "charts": charts(statistics),
        "lists": lists(statistics),
        "uncounted": statistics.uncounted,
    }


def log(query: Query) -> str:
    return f"{reverse('admin:accounts_auditevent_changelist')}?{urlencode(query)}"


def period_query(start: Any, end: Any) -> Query:
    """Filter of the audit log for a period."""
    return {"at__gte": start.isoformat(), "at__lt": end.isoformat()}


def charts(statistics: Statistics) -> list[Chart]:
    """One chart for each entry of CHARTS; its bars link to the audit log."""
    return [
        chart(s, title, series, statistics.slots, log_link, RATES.get(s))
        for s, title, series in CHARTS
    ]


def log_link(slot: Slot, query: Query) -> str:
    return log({**query, **period_query(slot.start, slot.end)})


def whole_span(statistics: Statistics) -> Query:
    """Filter of the audit log for the whole span."""
    return period_query(statistics.slots[0].start, statistics.slots[-1].end)


def cards(statistics: Statistics) -> list[tuple[Any, Any, str]]:
    """(label, value, URL) of each figure."""
    live = f"{reverse('admin:accounts_issuedtoken_changelist')}?state=active"
    denied, failed = {"decision__exact": "denied"}, {**CALLS, "outcome": "error"}
    span, tokens = whole_span(statistics), statistics.live_tokens
    calls, sign_ins = statistics.total("calls"), statistics.total(SIGNED_IN)
    return [
        (
            ngettext("tool call", "tool calls", calls),
            f"{calls:,}",
            log({**CALLS, **span}),
        ),
        (_("error rate"), percent(statistics.error_rate), log({**failed, **span})),
        (_("denied"), f"{statistics.total('refusals'):,}", log({**denied, **span})),
        (ngettext("active token", "active tokens", tokens), at_most(tokens), live),
        (
            ngettext("sign-in", "sign-ins", sign_ins),
            f"{sign_ins:,}",
            log({"action": SIGNED_IN, **span}),
        ),
        (_("median response time (p50)"), milliseconds(statistics.percentile(0.5)), ""),
        (_("95th percentile (p95)"), milliseconds(statistics.percentile(0.95)), ""),
    ]


def at_most(tokens: int) -> str:
    """The number, or "10,000+" above MOST_LIVE."""
    return f"{tokens:,}" if tokens <= MOST_LIVE else f"{MOST_LIVE:,}+"


def milliseconds(value: float | None) -> str:
    """A duration as text; percentiles from hourly buckets are within 5 %."""
    if value is None:
        return "-"
    return f"{value:.1f} ms" if value < 10 else f"{value:.0f} ms"


def lists(statistics: Statistics) -> list[tuple[Any, list[dict[str, Any]]]]:
    """(title, rows) of each list; rows have bar widths in percent and a URL."""
    span = whole_span(statistics)
    clients = [top.name for top in statistics.tops[Facet.CLIENT]]
    names: dict[Any, dict[str, Any]] = {
        Facet.CLIENT: OAuthClient.objects.all().names_of(clients),
        Facet.REASON: REASONS,
    }
    found = []
    for facet, title, column in LISTS:
        tops, known = statistics.tops[facet], names.get(Facet(facet), {})
        extra = {"decision__exact": "denied"} if facet == Facet.REASON else {}
        rows = [
            row(top, tops, known.get(top.name), {column: top.name, **span, **extra})
            for top in tops
        ]
        found.append((title, rows))
    return found


def row(top: Top, among: list[Top], label: str | None, query: Query) -> dict[str, Any]:
    highest = max(one.total for one in among)
    return {
        "name": label or top.name or "-",
        "url": log(query),
        "total": f"{top.total:,}",
        "denied": f"{top.denied:,}",
        "allowed_width": round(100 * top.allowed / highest, 1),
        "denied_width": round(100 * top.denied / highest, 1),
        "total_width": round(100 * top.total / highest, 1),
    }
