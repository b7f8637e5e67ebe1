"""Signing in with a real browser: by the link of an invitation, and by an OpenID provider on another site."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from services.console.adapters.openid import OpenIdClient
from services.registry.bootstrap import MIGRATIONS
from tests.conftest import migrated
from tests.integration.browser import BrowserPage, find_browser, open_browser
from tests.integration.console_pages import serve_console
from tests.integration.test_console_grpc import free_port
from tests.integration.test_console_people import MAIL, World
from tests.integration.test_openid import Provider
from tests.openid_provider import CLIENT_ID, CLIENT_SECRET
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

WIDTH, HEIGHT = 1366, 768


@dataclass
class Place:
    """A registry, a console at `localhost`, and a provider at `127.0.0.1`, which is another site to a browser."""

    world: World
    console: str
    provider: Provider


@pytest.fixture
def place(database_url: str, tmp_path: Path) -> Iterator[Place]:
    port = free_port()
    console = f"http://localhost:{port}"
    provider = Provider(f"{console}/openid/callback")
    with migrated(database_url, MIGRATIONS) as engine:
        world = World(engine, tmp_path)
        openid = OpenIdClient(provider.issuer, CLIENT_ID, CLIENT_SECRET, console)
        try:
            with serve_console(world.services, "localhost", port, openid):
                yield Place(world, console, provider)
        finally:
            world.server.stop(0)
            provider.stop()


@pytest.fixture
def page(tmp_path: Path) -> Iterator[BrowserPage]:
    program = find_browser()
    if program is None:
        pytest.skip("needs Chromium")
    with open_browser(program, tmp_path / "profile") as browser:
        yield browser


def arrive(page: BrowserPage, path: str) -> str:
    """Wait until the browser shows a page of the console; returns its text."""
    wait_until(lambda: page.evaluate("document.readyState === 'complete' && document.location.pathname") == path)
    return str(page.evaluate("document.body.innerText"))


def test_a_person_opens_their_invitation_and_signs_in(place: Place, page: BrowserPage) -> None:
    code = place.world.invite().code
    page.open(f"{place.console}/invitation#{code}", WIDTH, HEIGHT)
    assert page.evaluate("document.getElementById('code').value") == code
    # Neither the address bar nor the history keeps it.
    assert page.evaluate("document.location.href") == f"{place.console}/invitation"
    page.evaluate("document.querySelector('main button').click()")
    wait_until(lambda: "Welcome, Ada Example" in str(page.evaluate("document.body.innerText")))
    assert "tlp_" in str(page.evaluate("document.body.innerText"))
    page.evaluate("document.querySelector('main button').click()")
    assert "Ada Example · expert" in arrive(page, "/judge")
    assert page.errors == []


def test_a_person_comes_from_the_provider_and_is_signed_in(place: Place, page: BrowserPage) -> None:
    place.world.invite(mail=MAIL)
    page.open(f"{place.console}/drafts", WIDTH, HEIGHT)
    assert "Sign in with your company account" in arrive(page, "/login")
    # The provider's own page goes to the console, as a portal would: browsers withhold strict cookies from such a navigation and its redirects.
    page.open(f"{place.provider.issuer}/keys", WIDTH, HEIGHT)
    page.evaluate(f"document.location.href = '{place.console}/openid/begin?next=/drafts'")
    assert "Ada Example · expert" in arrive(page, "/drafts")
    # The provider has no icon.
    assert [error for error in page.errors if "404" not in error] == []
