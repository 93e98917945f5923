"""URL patterns of the administration API, except those of mcp_bridge."""

from rest_framework.routers import SimpleRouter

from accounts.admin_api.clients import ClientsView, DocumentHostsView
from accounts.admin_api.events import EventsView
from accounts.admin_api.notifications.channels import ChannelsView
from accounts.admin_api.notifications.deliveries import DeliveriesView
from accounts.admin_api.onboarding.access_requests import AccessRequestsView
from accounts.admin_api.onboarding.invitations import InvitationsView
from accounts.admin_api.people import PeopleView
from accounts.admin_api.providers import ProvidersView
from accounts.admin_api.roles import AssignmentsView, RolesView, ScopesView
from accounts.admin_api.tokens import TokensView

router = SimpleRouter(use_regex_path=False)
router.register("api/v1/people", PeopleView, "api-people")
router.register("api/v1/invitations", InvitationsView, "api-invitations")
router.register("api/v1/access-requests", AccessRequestsView, "api-access-requests")
router.register("api/v1/scopes", ScopesView, "api-scopes")
router.register("api/v1/roles", RolesView, "api-roles")
router.register("api/v1/assignments", AssignmentsView, "api-assignments")
router.register("api/v1/clients", ClientsView, "api-clients")
router.register("api/v1/document-hosts", DocumentHostsView, "api-document-hosts")
router.register("api/v1/providers", ProvidersView, "api-providers")
router.register("api/v1/channels", ChannelsView, "api-channels")
router.register("api/v1/deliveries", DeliveriesView, "api-deliveries")
router.register("api/v1/tokens", TokensView, "api-tokens")
router.register("api/v1/events", EventsView, "api-events")

urlpatterns = router.urls
