"""Series about the service itself: database, audit, rate limit store and processes.

mcp_bridge/server/sampling.py sets the gauges. Without METRICS_TOKEN nothing is counted.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cache, lru_cache
from pathlib import Path
from typing import Literal

from prometheus_client import Counter, Gauge, Histogram

from mcp_bridge.metrics.prometheus import ENABLED

Mode = Literal["livesum", "livemax", "livemin"]
READS = (0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5)
COMMITS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 8)
CALLS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60)
STATUS, DESCRIPTORS = Path("/proc/self/statm"), Path("/proc/self/fd")


def gauge(name: str, text: str, mode: Mode, *labels: str) -> Gauge:
    """A gauge of this process; `mode` combines the live workers."""
    return Gauge(f"portico_{name}", text, labels, multiprocess_mode=mode)


change_reads = Histogram(
    "portico_change_read_seconds",
    "Time to read the number of the last change, once for each message.",
    buckets=READS,
)
audit_commits = Histogram(
    "portico_audit_commit_seconds",
    "Time to commit a batch of call events.",
    buckets=COMMITS,
)
audit_failures = Counter(
    "portico_audit_events_failed", "Call events that the database refused."
)
audit_events = Counter(
    "portico_audit_events",
    "Audit events of sign-ins, tokens and changes.",
    ("action",),
)
upstream_calls = Histogram(
    "portico_upstream_seconds",
    "Time that upstream MCP servers took for calls, with how they ended.",
    ("upstream", "outcome"),
    buckets=CALLS,
)
info = gauge(
    "info", "1, with what runs.", "livemax", "version", "database", "durability"
)
workers = gauge("workers", "Processes that serve.", "livesum")
caching = gauge("caching", "1 if decisions are cached, else 0.", "livemin")
store_up = gauge(
    "rate_limit_store_up", "1 if the shared store answers.", "livemin", "kind"
)
pool = gauge(
    "database_pool_connections",
    "Connections in use, idle, and requests that wait for one.",
    "livesum",
    "state",
)
pool_max = gauge("database_pool_max", "Connections that may be open.", "livesum")
unsealed = gauge(
    "audit_unsealed_events", "Events without a seal, at most 10,000.", "livemax"
)
unsealed_age = gauge(
    "audit_oldest_unsealed_seconds", "Age of the oldest of them; 0: none.", "livemax"
)
last_purge = gauge(
    "last_purge_timestamp_seconds",
    "Time of the last complete purge, or of the first audit event.",
    "livemax",
)
cpu = Counter("portico_process_cpu_seconds", "CPU time of all processes.")
memory = gauge(
    "process_resident_memory_bytes", "Resident memory of all processes.", "livesum"
)
largest = gauge(
    "process_largest_resident_memory_bytes",
    "Resident memory of the largest process.",
    "livemax",
)
descriptors = gauge(
    "process_open_descriptors", "Open descriptors of the process with most.", "livemax"
)
descriptor_limit = gauge(
    "process_max_descriptors", "Descriptors that a process may open.", "livemin"
)


def observe_change_read(began: float) -> None:
    """Count a read that began at this time of perf_counter."""
    if ENABLED:
        change_reads.observe(time.perf_counter() - began)


def observe_commit(began: float, failed: int) -> None:
    """Count a commit with the number of its events that failed."""
    if ENABLED:
        audit_commits.observe(time.perf_counter() - began)
        audit_failures.inc(failed)


def count_audit_event(action: str) -> None:
    if ENABLED:
        event_series(action).inc()


def count_upstream_call(upstream: str, outcome: str, seconds: float) -> None:
    """Count one call at an upstream server."""
    if ENABLED:
        upstream_series(upstream, outcome).observe(seconds)


@lru_cache(maxsize=4096)
def upstream_series(upstream: str, outcome: str) -> Histogram:
    return upstream_calls.labels(upstream, outcome)


@cache
def event_series(action: str) -> Counter:
    return audit_events.labels(action)


def set_pool(stats: Mapping[str, int]) -> None:
    """Set the gauges from psycopg_pool's statistics."""
    size, idle = stats.get("pool_size", 0), stats.get("pool_available", 0)
    pool.labels("in_use").set(size - idle)
    pool.labels("idle").set(idle)
    pool.labels("waiting").set(stats.get("requests_waiting", 0))
    pool_max.set(stats.get("pool_max", 0))


class ProcessSampler:
    """The resources of this process; memory and descriptors on Linux only."""

    def __init__(self) -> None:
        self.counted = 0.0

    def sample(self) -> None:
        used = sum(os.times()[:2])
        cpu.inc(max(0.0, used - self.counted))
        self.counted = used
        workers.set(1)
        descriptor_limit.set(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        with suppress(OSError):
            pages = int(STATUS.read_text().split()[1])
            memory.set(pages * resource.getpagesize())
            largest.set(pages * resource.getpagesize())
            descriptors.set(len(list(DESCRIPTORS.iterdir())))
