"""Served only by the conformance tests."""

from django.apps import AppConfig


class ConformanceConfig(AppConfig):
    """No models, only the primitives that the suite names."""

    name = "tests.apps.conformance"
    label = "conformance"
