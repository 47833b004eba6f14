"""One outside for all tests of the egress."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator

import pytest

from runvisor.actors.jail.egress.egress import EgressBroker
from tests.actors.jail.egress import world as parts


@pytest.fixture(scope="session")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[parts.World]:
    """Servers of each kind, a canary, and a broker that knows where they are."""
    if os.geteuid() != 0:
        pytest.skip("needs root for network namespaces")
    certificate, key = parts.make_certificate(tmp_path_factory.mktemp("authority"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    web, body, echo, flood, canary = map(
        parts.Upstream, (parts.web, parts.whole_body, parts.echo, parts.flood, parts.web)
    )
    tls = parts.Upstream(parts.web, context)
    table = {
        "allowed.test:80": web.place,
        "allowed.test:443": tls.place,
        "a.wild.test:80": web.place,
        "a.wild.test:443": tls.place,
        "allowed.test:7": echo.place,
        "body.test:80": body.place,
        "mute.test:9": body.place,
        "flood.test:7000": flood.place,
        "127.0.0.9:443": tls.place,
        "gone.test:80": "127.0.0.1:1",
        **dict.fromkeys(("evil.test", "wild.test", "allowed.test", "127.0.0.1", "a.test", "localhost"), canary.place),
    }
    with EgressBroker(table) as broker:
        yield parts.World(certificate, web, tls, body, echo, flood, canary, broker)
    canary.settle()
    assert canary.connections == 0
    for upstream in (web, tls, body, echo, flood, canary):
        upstream.close()


@pytest.fixture
def canary(outside: parts.World) -> Iterator[parts.Upstream]:
    """A server that nothing may reach; checked after the test."""
    before = outside.canary.connections
    yield outside.canary
    outside.canary.settle()
    assert outside.canary.connections == before
