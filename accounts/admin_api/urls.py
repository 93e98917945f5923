"""URL patterns of the administration API, except those of mcp_bridge."""

from rest_framework.routers import SimpleRouter

from accounts.admin_api.clients import ClientsView
from accounts.admin_api.events import EventsView
from accounts.admin_api.people import PeopleView
from accounts.admin_api.roles import AssignmentsView, RolesView
from accounts.admin_api.tokens import TokensView

router = SimpleRouter(use_regex_path=False)
router.register("api/v1/people", PeopleView, "api-people")
router.register("api/v1/roles", RolesView, "api-roles")
router.register("api/v1/assignments", AssignmentsView, "api-assignments")
router.register("api/v1/clients", ClientsView, "api-clients")
router.register("api/v1/tokens", TokensView, "api-tokens")
router.register("api/v1/events", EventsView, "api-events")

urlpatterns = router.urls
