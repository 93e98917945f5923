"""URL patterns of this app's part of the administration API."""

from rest_framework.routers import SimpleRouter

from mcp_bridge.admin_api.access import AccessMatrixView
from mcp_bridge.admin_api.tools import ToolsView
from mcp_bridge.admin_api.upstreams import UpstreamsView

router = SimpleRouter(use_regex_path=False)
router.register("api/v1/tools", ToolsView, "api-tools")
router.register("api/v1/access", AccessMatrixView, "api-access")
router.register("api/v1/upstreams", UpstreamsView, "api-upstreams")

urlpatterns = router.urls
