"""A stranger on the machine at every port of the running services, with the headers of another site and as another account."""

import http.client
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from fastapi.routing import APIRoute

from services.console.web.app import MODULES
from tailor.local.ports import PORT_NAMES, STORE_PORTS
from tests.e2e.conftest import Installation
from tests.untrusted_clients import answer, as_stranger, listening_ports

pytestmark = pytest.mark.e2e

STATUS = ("/", "/healthz", "/livez", "/readyz", "/metrics", "/debug/pprof/")
API = ("/", "/v1/models", "/v1/models/base", "/v1/chat/completions", "/v1/drafts/x/feedback", "/docs", "/openapi.json")
# Health and metrics are for everybody, as are the pages to sign in with.
OPEN = re.compile(r"-status/(healthz|livez|readyz|metrics)$|console-http/(login$|invitation$|static/)")
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS")


@pytest.fixture(scope="module")
def ports(installation: Installation) -> Mapping[str, int]:
    """The ports on which services listen, by name. `tests/integration/test_local_strangers.py` asks those of the stores."""
    block = installation.stack.snapshot().ports
    names = {block[name]: name for name in PORT_NAMES if name not in STORE_PORTS}
    found = {names[port]: port for port in listening_ports(installation.root) if port in names}
    assert {name for name in found if name.endswith("-http")} == {"inference-http", "console-http"}
    assert len([name for name in found if name.endswith("-rpc")]) == 7
    assert len([name for name in found if name.endswith("-status")]) == 8
    return found


def _paths(name: str) -> tuple[str, ...]:
    if name == "console-http":
        routes = [route for module in MODULES for route in module.router.routes if isinstance(route, APIRoute)]
        return ("/static/console.css", "/docs", *sorted({re.sub(r"[{}]", "", route.path) for route in routes}))
    return STATUS if name.endswith("-status") else API


def _served(ports: Mapping[str, int]) -> Iterator[list[Any]]:
    """What was answered with more than a refusal or the way to the page to sign in with."""
    for name, port in sorted(ports.items()):
        for path in _paths(name):
            for method in METHODS:
                status, target = answer(http.client.HTTPConnection("127.0.0.1", port, timeout=20), method, path)
                is_redirect = status == 303 and target.startswith("/login")
                if 0 < status < 400 and not is_redirect and not OPEN.search(f"{name}{path}"):
                    yield [name, method, path, status]


def test_no_service_serves_a_page_of_another_site(ports: Mapping[str, int]) -> None:
    assert list(_served(ports)) == []
    status = http.client.HTTPConnection("127.0.0.1", ports["registry-status"], timeout=20)
    assert answer(status, "GET", "/readyz")[0] == 200


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may change its account")
def test_no_service_serves_a_process_of_another_account(ports: Mapping[str, int]) -> None:
    assert as_stranger(lambda: list(_served(ports))) == []
