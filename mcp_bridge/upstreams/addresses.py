"""Refuses forbidden addresses of upstream servers before a call."""

from __future__ import annotations

from accounts.http.private_addresses import address_in, may_contact
from mcp_bridge.upstreams.problems import UpstreamProblem


def check_url(name: str, url: str) -> None:
    """Raises UpstreamProblem for a URL whose host is a forbidden address."""
    host = address_in(url)
    if host and not may_contact(host):
        raise private_address(name, host)


def private_address(name: str, host: str) -> UpstreamProblem:
    """The problem of a private address; names the setting that allows it."""
    text = (
        f"The upstream server {name} has a private address ({host}). If it is meant, "
        "add its network to UPSTREAM_PRIVATE_NETWORKS, for example 10.0.0.0/8."
    )
    return UpstreamProblem("private_address", text)
