"""Served by the server of the flow tests (EXTRA_APPS=tests.apps.shop)."""

from django.apps import AppConfig


class ShopConfig(AppConfig):
    name = "tests.apps.shop"
    label = "shop"
