"""The system page: results of `manage.py doctor`, versions and settings."""

from __future__ import annotations

from django.conf import settings
from django.core.checks import ERROR
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext_lazy as _

from accounts.admin_site import system_status
from accounts.admin_site.navigation.groups import Section
from accounts.admin_site.site import SitePage, site_page
from accounts.http.help.links import help_url


@site_page
class SystemPage(SitePage):
    path, name, title = "system/", "system", _("System")
    place = (Section.SETTINGS, 10)
    permissions = ("accounts.view_system",)
    template = "admin/system.html"

    def get(self, request: HttpRequest) -> HttpResponse:
        results = system_status.findings()
        return self.page(
            {
                "closing": system_status.closing_line(results),
                "messages_found": [
                    (
                        m.level >= ERROR,
                        system_status.severity_label(m),
                        m,
                        help_url(str(m.msg)),
                    )
                    for m in results
                ],
                "versions": system_status.versions(),
                "settings_shown": system_status.settings_shown(),
                "workers": settings.WORKERS,
            }
        )
