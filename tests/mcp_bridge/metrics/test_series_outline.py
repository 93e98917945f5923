"""The series of /metrics: names, labels, texts, buckets and how workers are combined.

After an intended change, write the file again and read the difference:
`NEW_OUTLINES=1 .venv/bin/python -m pytest tests/mcp_bridge/metrics`
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prometheus_client import Counter, Gauge, Histogram

from mcp_bridge.metrics import prometheus, service
from tests.support.outlines import compare

pytestmark = pytest.mark.once
OUTLINES = Path(__file__).parent / "outlines"


def line(series: Any) -> str:
    """One series as dashboards and alerts know it."""
    parts = [f"{series._type} {series._name}", *series._labelnames]
    if isinstance(series, Gauge):
        parts.append(f"of workers: {series._multiprocess_mode}")
    if isinstance(series, Histogram):
        parts.append(f"up to {series._kwargs['buckets']}")
    return f"{', '.join(parts)}: {series._documentation}\n"


def test_the_series_are_what_they_were() -> None:
    """Dashboards of operators name them."""
    found = [
        line(series)
        for module in (prometheus, service)
        for series in vars(module).values()
        if isinstance(series, Counter | Gauge | Histogram)
    ]
    compare({"series.txt": "".join(sorted(set(found)))}, OUTLINES)
