"""Series about the service itself."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY, Gauge

from mcp_bridge.metrics import service
from mcp_bridge.metrics.multiprocess import KINDS

pytestmark = pytest.mark.once


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"portico_{name}", labels) or 0.0


@pytest.mark.parametrize("enabled", [True, False])
def test_nothing_is_counted_without_a_token(
    monkeypatch: pytest.MonkeyPatch, enabled: bool
) -> None:
    monkeypatch.setattr(service, "ENABLED", enabled)
    names = ["change_read_seconds_count", "audit_commit_seconds_count"]
    names += ["audit_events_failed_total"]
    before = [value(name) for name in names]
    seen = value("audit_events_total", action="user.signed_in")
    service.observe_change_read(time.perf_counter())
    service.observe_commit(time.perf_counter(), 3)
    service.count_audit_event("user.signed_in")
    added = [value(name) - old for name, old in zip(names, before, strict=True)]
    assert added == [enabled, enabled, 3 * enabled]
    after = value("audit_events_total", action="user.signed_in")
    assert after - seen == enabled


@pytest.mark.parametrize("enabled", [True, False])
def test_a_call_is_counted_for_its_server_and_outcome(
    monkeypatch: pytest.MonkeyPatch, enabled: bool
) -> None:
    monkeypatch.setattr(service, "ENABLED", enabled)
    labels = {"upstream": f"acme-{enabled}", "outcome": "may_have_run"}
    service.count_upstream_call(labels["upstream"], labels["outcome"], 0.25)
    service.count_upstream_call(labels["upstream"], labels["outcome"], 0.5)
    service.count_upstream_call(labels["upstream"], "ok", 9.0)
    assert value("upstream_seconds_count", **labels) == 2 * enabled
    assert value("upstream_seconds_sum", **labels) == 0.75 * enabled


@pytest.mark.parametrize("seconds", [0.2, 3.0])
def test_times_are_those_since_the_beginning(
    monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    monkeypatch.setattr(service, "ENABLED", True)
    names = ["change_read_seconds_sum", "audit_commit_seconds_sum"]
    before = [value(name) for name in names]
    service.observe_change_read(time.perf_counter() - seconds)
    service.observe_commit(time.perf_counter() - seconds, 0)
    added = [value(name) - old for name, old in zip(names, before, strict=True)]
    assert added == pytest.approx([seconds] * 2, abs=0.1)


def test_the_pool_is_shown_by_state() -> None:
    service.set_pool(
        {"pool_size": 4, "pool_available": 1, "requests_waiting": 2, "pool_max": 5}
    )
    states = ("in_use", "idle", "waiting")
    found = [value("database_pool_connections", state=state) for state in states]
    assert found == [3, 1, 2] and value("database_pool_max") == 5


def test_a_process_adds_its_own_cpu_time_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """User and system time, without that of children."""
    sampler, before = service.ProcessSampler(), value("process_cpu_seconds_total")
    for used, total in (((1.0, 0.5, 9.0, 9.0), 1.5), ((1.5, 1.0, 9.0, 9.0), 2.5)):
        monkeypatch.setattr(os, "times", lambda used=used: used)
        for _ in range(2):
            sampler.sample()
        added = value("process_cpu_seconds_total") - before
        assert added == pytest.approx(total)
    assert value("workers") == 1


@pytest.mark.skipif(not service.STATUS.exists(), reason="Linux only")
def test_memory_and_descriptors_are_those_of_the_process() -> None:
    service.ProcessSampler().sample()
    before = value("process_open_descriptors")
    opened = [open(os.devnull) for _ in range(5)]
    service.ProcessSampler().sample()
    for file in opened:
        file.close()
    assert value("process_open_descriptors") == before + 5
    assert value("process_max_descriptors") >= value("process_open_descriptors")
    size = value("process_resident_memory_bytes")
    assert size == value("process_largest_resident_memory_bytes") > 10_000_000


def test_other_systems_have_no_memory_figures(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    service.memory.set(7)
    monkeypatch.setattr(service, "STATUS", tmp_path / "no-such-file")
    service.ProcessSampler().sample()
    assert value("process_resident_memory_bytes") == 7


def test_gauges_of_workers_are_combined_and_their_files_reserved() -> None:
    """An ended worker's share disappears; each kind of file is allocated at start."""
    gauges: list[Any] = [v for v in vars(service).values() if type(v) is Gauge]
    modes = {gauge._name: gauge._multiprocess_mode for gauge in gauges}
    assert len(modes) >= 12
    assert {f"gauge_{mode}" for mode in modes.values()} <= set(KINDS)
    assert modes["portico_caching"] == modes["portico_rate_limit_store_up"] == "livemin"
    assert modes["portico_process_resident_memory_bytes"] == "livesum"
    assert modes["portico_process_open_descriptors"] == "livemax"
