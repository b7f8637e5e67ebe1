"""The console over HTTP on a free port, and a browser that is signed in to it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from services.console.adapters.openid import OpenIdClient
from services.console.clients import Services
from services.console.web.app import create_app
from services.console.web.server import HttpServer
from tailor.errors import Unavailable
from tests.integration.browser import BrowserPage, find_browser, open_browser
from tests.integration.test_console_grpc import free_port
from tests.unit.console.world import settings, sign_in
from tests.waiting import wait_until


@contextmanager
def serve_console(
    services: Services, host: str = "127.0.0.1", port: int = 0, openid: OpenIdClient | None = None
) -> Iterator[str]:
    """Run a console until the end of the block; yields its address."""
    options = settings().model_copy(update={"http_host": host, "http_port": port or free_port()})
    server, stop = HttpServer(options, create_app(options, services, openid)), threading.Event()
    thread = threading.Thread(target=server.run, args=(stop,))
    thread.start()
    try:
        _wait_until_started(server)
        yield f"http://{host}:{options.http_port}"
    finally:
        stop.set()
        thread.join()


@contextmanager
def open_signed_in(address: str, secret: str, folder: Path) -> Iterator[BrowserPage]:
    """A browser with the session of the key's holder. Skips the test without Chromium."""
    program = find_browser()
    if program is None:
        pytest.skip("needs Chromium")
    with httpx.Client(base_url=address) as client, open_browser(program, folder) as page:
        sign_in(client, secret)
        for cookie in client.cookies.jar:
            page.set_cookie(address, cookie.name, cookie.value or "")
        yield page


def _wait_until_started(server: HttpServer) -> None:
    def is_started() -> bool:
        try:
            server.check_started()
        except Unavailable:
            return False
        return True

    wait_until(is_started)
