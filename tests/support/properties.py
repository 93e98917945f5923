"""Settings of property tests (Hypothesis)."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

ON_BUSY_MACHINES = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""An example that takes long says nothing about the code."""
