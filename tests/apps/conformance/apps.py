"""Served only by the conformance tests."""

from django.apps import AppConfig


class ConformanceConfig(AppConfig):
    """No models, only what the suite asks for by name."""

    name = "tests.apps.conformance"
    label = "conformance"
