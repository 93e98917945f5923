"""A small shop: an example of an app with MCP tools."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class ProductsConfig(AppConfig):
    """Enabled by EXTRA_APPS=examples.products."""

    name = "examples.products"
    label = "products"
    verbose_name = _("Products")
    default_auto_field = "django.db.models.BigAutoField"
