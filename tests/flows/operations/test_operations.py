"""Health, metrics, logs and traces of a real server with two workers."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings

from accounts.management.commands.migrate import migration_lock
from accounts.models import AuditEvent, SigningKey
from config.server import logs, tracing
from config.views import readiness
from mcp_bridge.metrics.multiprocess import FILE_SIZE, KINDS
from mcp_bridge.metrics.prometheus import route_of
from tests.support.mcp_client import HTTP, McpClient, mcp_client
from tests.support.server import ROOT, Portico, running_server
from tests.support.valkey import valkey

pytestmark = pytest.mark.usefixtures("default_users")
TOKEN = "metrics-token-of-the-tests"
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(scope="module")
def observed_server(rows: None, folder: Path) -> Iterator[Portico]:
    """Two workers with metrics, tracing and JSON logs."""
    settings = {
        "WORKERS": "2",
        "METRICS_TOKEN": TOKEN,
        "LOG_FORMAT": "json",
        "OTEL_TRACES_EXPORTER": "console",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
    }
    with valkey() as store:
        settings["VALKEY_URL"] = store.connection_url
        with running_server(folder, **settings) as running:
            yield running


def metrics(server: Portico) -> dict[str, float]:
    headers = {"authorization": f"Bearer {TOKEN}"}
    answer = HTTP.get(f"{server.url}/metrics", headers=headers)
    assert answer.status_code == 200, answer.text
    lines = [x for x in answer.text.splitlines() if x and not x.startswith("#")]
    pairs = (line.rpartition(" ") for line in lines)
    return {name: float(value) for name, _, value in pairs}


def increase(before: dict[str, float], after: dict[str, float], name: str) -> float:
    """The increase of one sample."""
    return after.get(name, 0) - before.get(name, 0)


def test_metrics_cover_all_workers(observed_server: Portico) -> None:
    """Any worker reports the counts of all."""
    clients = [mcp_client(observed_server, "alice") for _ in range(3)]
    before = metrics(observed_server)
    for client in clients * 4:
        assert client.text("look") == "alice looks at shelf"
    McpClient(observed_server, "nonsense").call("look")
    HTTP.get(f"{observed_server.url}/healthz")
    HTTP.get(f"{observed_server.url}/strange/{'x' * 50}")
    many = {
        'requests_total{method="POST",route="mcp",status="200"}': 12,
        'requests_total{method="POST",route="mcp",status="401"}': 1,
        'requests_total{method="GET",route="healthz",status="200"}': 1,
        'requests_total{method="GET",route="other",status="404"}': 1,
        'request_duration_seconds_count{route="mcp"}': 13,
    }
    expected = {f"portico_http_{name}": count for name, count in many.items()}
    expected['portico_decisions_total{reason="granted",verdict="allowed"}'] = 12
    for _ in range(50):  # a request is counted after its response is sent
        after = metrics(observed_server)
        found = {name: increase(before, after, name) for name in expected}
        if found == expected and not after["portico_http_requests_in_flight"]:
            break
    assert found == expected
    assert after["portico_http_requests_in_flight"] == 0
    assert after["portico_audit_queue"] == 0


def test_metrics_show_the_state_of_all_workers(observed_server: Portico) -> None:
    """Each of them measures itself."""
    for _ in range(50):
        found = metrics(observed_server)
        if found["portico_workers"] == 2:
            break
        time.sleep(0.1)
    assert found["portico_workers"] == 2 and found["portico_caching"] == 1
    assert found['portico_rate_limit_store_up{kind="valkey"}'] == 1
    memory = found["portico_process_resident_memory_bytes"]
    largest = found["portico_process_largest_resident_memory_bytes"]
    assert memory / 2 <= largest < memory
    assert 0 < found["portico_process_open_descriptors"]
    assert found["portico_process_cpu_seconds_total"] > 0
    before = found["portico_change_read_seconds_count"]
    assert mcp_client(observed_server, "alice").text("look") == "alice looks at shelf"
    after = metrics(observed_server)
    assert after["portico_change_read_seconds_count"] > before
    assert after["portico_audit_commit_seconds_count"] > 0


@pytest.mark.once
def test_metrics_reserve_their_disk_space(observed_server: Portico) -> None:
    """A write through mmap on a full disk kills the process."""
    folder = Path(observed_server.environment["DATA_DIR"]) / "metrics"
    files = list(folder.glob("*/*.db"))
    assert len(files) == 2 * len(KINDS), "two workers' files, and no others"
    assert all(file.stat().st_blocks * 512 >= FILE_SIZE for file in files)


@pytest.mark.once
def test_metrics_need_their_token(observed_server: Portico, server: Portico) -> None:
    """Metrics are off without METRICS_TOKEN and need it otherwise."""
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": TOKEN}):
        refused = HTTP.get(f"{observed_server.url}/metrics", headers=headers)
        assert refused.status_code == 401 and "portico_" not in refused.text
    assert HTTP.get(f"{server.url}/metrics").status_code == 404


@pytest.mark.once
@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/mcp", "mcp"),
        ("/mcp/", "mcp"),
        ("/oauth/token", "oauth/token"),
        ("/oauth/x/y", "oauth"),
        ("/admin/accounts/user/7/", "admin"),
        ("/", "other"),
        ("/\x00\n", "other"),
    ],
)
def test_paths_map_to_few_routes(path: str, route: str) -> None:
    assert route_of(path) == route


def test_readyz_lists_its_checks(observed_server: Portico) -> None:
    """Nothing is named while all parts work."""
    answer = HTTP.get(f"{observed_server.url}/readyz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ready"})


@pytest.mark.django_db
def test_a_failed_check_is_named(rf: Any, monkeypatch: Any) -> None:
    """The names are safe to publish."""
    SigningKey.objects.ensure_active()
    SigningKey.objects.filter(state="active").update(private_encrypted=b"x" * 40)
    migrations = frozenset({("accounts", "9999_future")})
    monkeypatch.setattr(readiness, "expected", lambda: migrations)
    with override_settings(VALKEY_URL="redis://127.0.0.1:1"):
        answer = readiness.readyz(rf.get("/readyz"))
    body = json.loads(answer.content)
    assert answer.status_code == 503 and answer["Retry-After"]
    assert body["problems"].keys() == {"migrations", "signing_key", "session_manager"}
    assert body["degraded"].keys() == {"shared_store"}


@pytest.mark.once
def test_a_log_line_has_the_request_id_and_cannot_be_forged(
    observed_server: Portico,
) -> None:
    """One JSON object per record, from a synchronous view and from /mcp."""
    name = "of-this-very-request"
    headers = {"x-request-id": name}
    message = {"username": "eve\nFORGED record", "password": "wrong"}
    HTTP.post(f"{observed_server.url}/api/token/", json=message, headers=headers)
    mcp_client(observed_server, "alice").post(
        "tools/call", {"name": "crash"}, extra=headers
    )
    found = [
        line for line in observed_server.log.read_text().splitlines() if name in line
    ]
    records = [json.loads(line) for line in found if line.startswith("{")]
    assert AuditEvent.objects.filter(request_id=name).exists()
    assert all(r["request_id"] == name and r["level"] for r in records)
    assert "\nFORGED" not in observed_server.log.read_text()


@pytest.mark.once
def test_a_text_line_cannot_be_forged() -> None:
    """Newlines and escapes from outside are shown."""
    event = {
        "timestamp": "T",
        "level": "error",
        "logger": "x",
        "event": "a\nT ERROR x: forged\x1b[2J",
        "exception": "Traceback\nValueError: b\r\nT ERROR x: forged",
        "request_id": "r",
    }
    lines = logs.line(None, "error", event).splitlines()
    assert lines[0] == r"T ERROR x: a\nT ERROR x: forged\x1b[2J [r]"
    assert all(line.startswith("  | ") for line in lines[1:])


@pytest.mark.once
def test_a_trace_joins_the_request_and_the_sdks_span(observed_server: Portico) -> None:
    """Portico's span is under the caller's, the SDK's under Portico's."""
    mcp_client(observed_server, "alice").post(
        "tools/call", {"name": "look"}, extra={"traceparent": TRACEPARENT}
    )
    trace = TRACEPARENT.split("-")[1]
    pattern = re.compile(r"^\{$.*?^\}$", re.MULTILINE | re.DOTALL)
    for _ in range(100):
        text = observed_server.log.read_text()
        spans = [json.loads(s) for s in pattern.findall(text) if trace in s]
        if len(spans) >= 2:
            break
        HTTP.get(f"{observed_server.url}/readyz")
    by_name = {span["name"]: span for span in spans}
    ours, theirs = by_name["POST /mcp"], by_name["tools/call look"]
    assert ours["parent_id"] == f"0x{TRACEPARENT.split('-')[2]}"
    assert theirs["parent_id"] == ours["context"]["span_id"]
    assert ours["resource"]["attributes"]["service.name"] == "portico"


@pytest.mark.once
@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({}, ""),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, "otlp"),
        ({"OTEL_TRACES_EXPORTER": "none", tracing.ENDPOINTS[0]: "http://c"}, ""),
        ({"OTEL_TRACES_EXPORTER": "console", "OTEL_SDK_DISABLED": "true"}, ""),
    ],
)
def test_tracing_can_be_enabled(
    given: dict[str, str], kind: str, monkeypatch: Any
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert tracing.exporter_name() == kind


@pytest.mark.once
@pytest.mark.parametrize("exporter", ["otlp", "carrier-pigeon"])
def test_an_impossible_tracing_setting_is_an_error(
    exporter: str, monkeypatch: Any
) -> None:
    """Covers missing packages of the optional extra and an unknown value."""
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http", None)
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", exporter)
    with pytest.raises(SystemExit, match="OTEL_"):
        tracing.traced(None)  # type: ignore[arg-type]


@pytest.mark.once
def test_more_workers_than_configured_are_refused(folder: Path) -> None:
    """WORKERS and uvicorn's --workers must agree in production."""
    code = "from config.server.workers import refuse_uncounted_workers as f; f()"
    run = (
        "import multiprocessing as m, sys; p = m.get_context('spawn').Process("
        f"target=exec, args=({code!r},)); p.start(); p.join(); sys.exit(p.exitcode)"
    )
    env = {
        "ENVIRONMENT": "production",
        "ISSUER_URL": "https://portico.example",
        "SECRET_KEY": "0123456789abcdefghijklmnopqrstuvwxyz" * 2,
        "KEY_ENCRYPTION_KEY": "zyxwvutsrqponmlkjihgfedcba9876543210",
        "DATA_DIR": str(folder),
        "DJANGO_SETTINGS_MODULE": "config.settings",
    }
    done = subprocess.run(
        [sys.executable, "-c", run], cwd=ROOT, env=env, capture_output=True, text=True
    )
    assert done.returncode == 1 and "WORKERS: " in done.stderr, done.stderr


@pytest.mark.django_db
def test_one_job_migrates_at_a_time() -> None:
    """A second waits for the first (PostgreSQL); SQLite locks by itself."""
    from django.db import connection

    with migration_lock("default"):
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT count(*) FROM pg_locks WHERE locktype='advisory'"
                )
                assert cursor.fetchone() == (1,)
