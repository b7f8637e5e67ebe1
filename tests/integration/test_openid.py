"""Signing in by an OpenID provider that runs as a process: its pages, the console's pages, the registry and PostgreSQL."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from fastapi.testclient import TestClient

from services.console.adapters.openid import OpenIdClient, find_provider
from services.console.domain import SignInAttempt
from services.console.settings import Settings
from services.console.web.app import create_app
from services.console.web.sessions import ATTEMPT_COOKIE, COOKIE
from services.registry.bootstrap import MIGRATIONS
from tailor.errors import Unavailable
from tests.conftest import migrated
from tests.integration.test_console_grpc import free_port
from tests.integration.test_console_people import MAIL, World
from tests.openid_provider import CLIENT_ID, CLIENT_SECRET, PUBLIC_CLIENT_ID
from tests.unit.console.world import PASSWORD, settings, sign_in
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

CONSOLE = "http://127.0.0.1:9999"
CALLBACK = f"{CONSOLE}/openid/callback"


class Provider:
    """The provider's process."""

    def __init__(self, redirect_uri: str = CALLBACK) -> None:
        port = free_port()
        self.issuer = f"http://127.0.0.1:{port}"
        self._process = subprocess.Popen([sys.executable, "-m", "tests.openid_provider", str(port), redirect_uri])
        wait_until(self._answers, 60)

    def _answers(self) -> bool:
        assert self._process.poll() is None
        try:
            return httpx.get(f"{self.issuer}/keys").status_code == 200
        except httpx.TransportError:
            return False

    def user(self, **fields: Any) -> None:
        """Who signs in from now on, and what the id token says."""
        httpx.post(f"{self.issuer}/user", json=fields).raise_for_status()

    def rotate(self) -> None:
        """Change the key that signs."""
        httpx.post(f"{self.issuer}/rotate").raise_for_status()

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(timeout=60)


@pytest.fixture(scope="module")
def process() -> Iterator[Provider]:
    provider = Provider()
    yield provider
    provider.stop()


@pytest.fixture
def provider(process: Provider) -> Provider:
    process.user()
    return process


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> Iterator[World]:
    with migrated(database_url, MIGRATIONS) as engine:
        world = World(engine, tmp_path)
        yield world
        world.server.stop(0)


def client_of(provider: Provider, secret: str = CLIENT_SECRET) -> OpenIdClient:
    """The console's client of the provider."""
    return OpenIdClient(provider.issuer, CLIENT_ID, secret, CONSOLE)


class Browser:
    """A browser at the console. It follows the way to the provider and back."""

    def __init__(self, world: World, openid: OpenIdClient) -> None:
        app = create_app(settings(), world.services, openid)
        self.client = TestClient(app, base_url=CONSOLE, follow_redirects=False, raise_server_exceptions=False)

    def begin(self, next: str = "/") -> str:
        """Go to the provider; returns the address to which it sends the browser back."""
        sent = self.client.get("/openid/begin", params={"next": next})
        assert sent.status_code == 303, sent.text
        back = httpx.get(sent.headers["location"])
        assert back.status_code == 302, back.text
        return back.headers["location"]

    def sign_in(self, next: str = "/") -> Any:
        """The console's answer to the browser that comes back."""
        return self.client.get(self.begin(next))


@pytest.fixture
def browser(world: World, provider: Provider) -> Browser:
    world.invite(mail=MAIL)
    return Browser(world, client_of(provider))


def test_an_invited_person_signs_in_with_their_company_account(
    browser: Browser, capfd: pytest.CaptureFixture[str]
) -> None:
    assert 'href="/openid/begin?next=/drafts"' in browser.client.get("/login", params={"next": "/drafts"}).text
    answer = browser.sign_in("/drafts")
    assert answer.status_code == 200 and 'content="0; url=/drafts"' in answer.text
    cookies = answer.headers.get_list("set-cookie")
    assert any(cookie.startswith(COOKIE) and "SameSite=strict" in cookie for cookie in cookies)
    assert ATTEMPT_COOKIE not in browser.client.cookies
    page = browser.client.get("/ask").text
    assert "Ada Example" in page and "expert" in page
    logs = "".join(capfd.readouterr())
    assert "account linked" in logs
    for hidden in (MAIL, "sub-1", "Ada"):
        assert hidden not in logs


def test_the_browser_proves_that_it_began_the_sign_in(browser: Browser) -> None:
    sent = browser.client.get("/openid/begin")
    asked = {name: values[0] for name, values in parse_qs(urlsplit(sent.headers["location"]).query).items()}
    assert (asked["response_type"], asked["code_challenge_method"], asked["redirect_uri"]) == ("code", "S256", CALLBACK)
    assert asked["scope"] == "openid email" and asked["client_id"] == CLIENT_ID
    assert len(asked["state"]) == len(asked["nonce"]) == 32 and len(asked["code_challenge"]) == 43
    cookie = sent.headers["set-cookie"]
    assert all(part in cookie for part in ("HttpOnly", "SameSite=lax", "Path=/openid", "Max-Age=600"))


@pytest.mark.parametrize(
    "claims",
    [
        {"nonce": "another"},
        {"nonce": None},
        {"aud": ["another-client"]},
        {"aud": [CLIENT_ID, "another-client"], "azp": "another-client"},
        {"iss": "https://evil.example"},
        {"exp": int(time.time()) - 60},
        {"iat": int(time.time()) + 3600},
        {"sub": ""},
        {"sub": 7},
        {"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"},
        {"sign_with": "none"},
        {"sign_with": "hs256"},
        {"sign_with": "strange"},
    ],
)
def test_a_token_that_is_not_for_this_sign_in_is_refused(
    browser: Browser, provider: Provider, claims: dict[str, Any]
) -> None:
    provider.user(**claims)
    answer = browser.sign_in()
    assert (answer.status_code, "INVALID_SIGN_IN" in answer.text) == (401, True)
    assert browser.client.get("/ask").headers["location"].startswith("/login")
    provider.user()
    assert browser.sign_in().status_code == 200


@pytest.mark.parametrize(
    "account",
    [
        {"email_verified": False},
        {"email_verified": None},
        {"email_verified": "true"},
        {"email": "eve@example.com"},
        {"email": None},
        {"email": [MAIL]},
        {"email": "\u212aada@example.com"},
    ],
)
def test_only_an_invited_and_verified_mail_address_signs_in(
    browser: Browser, provider: Provider, account: dict[str, Any]
) -> None:
    provider.user(**account)
    answer = browser.sign_in()
    assert (answer.status_code, "NOT_INVITED" in answer.text) == (401, True)
    # A form would need the strict cookie, which browsers do not send on the way back from the provider.
    assert 'action="/login"' not in answer.text and 'href="/login"' in answer.text
    assert browser.client.get("/ask").status_code == 303


def test_an_answer_to_another_browser_or_with_another_state_is_refused(
    browser: Browser, world: World, provider: Provider
) -> None:
    back = browser.begin()
    other = Browser(world, client_of(provider))
    for answer in (
        other.client.get(back),
        browser.client.get("/openid/callback", params={"code": "guess", "state": "guess"}),
        browser.client.get(back.replace("state=", "state=x")),
        browser.client.get("/openid/callback"),
    ):
        assert (answer.status_code, "INVALID_SIGN_IN" in answer.text) == (401, True)
    # Each answer ends the attempt, so that a state cannot be guessed.
    assert browser.client.get(back).status_code == 401
    assert browser.sign_in().status_code == 200


def test_a_code_works_once_even_with_the_cookie_of_its_browser(browser: Browser) -> None:
    back = browser.begin()
    attempt = browser.client.cookies[ATTEMPT_COOKIE]
    assert browser.client.get(back).status_code == 200
    browser.client.cookies.clear()
    browser.client.cookies.set(ATTEMPT_COOKIE, attempt)
    answer = browser.client.get(back)
    assert (answer.status_code, "INVALID_SIGN_IN" in answer.text) == (401, True)


def test_a_code_of_another_attempt_is_refused_by_the_provider(browser: Browser) -> None:
    """PKCE: a stolen code is worth nothing in another browser's sign-in."""
    stolen = parse_qs(urlsplit(browser.begin()).query)["code"][0]
    own = parse_qs(urlsplit(browser.begin()).query)
    answer = browser.client.get("/openid/callback", params={"code": stolen, "state": own["state"][0]})
    assert (answer.status_code, "INVALID_SIGN_IN" in answer.text) == (401, True)


def test_a_refusal_by_the_provider_is_shown(browser: Browser) -> None:
    state = parse_qs(urlsplit(browser.begin()).query)["state"][0]
    answer = browser.client.get("/openid/callback", params={"error": "access_denied", "state": state})
    assert (answer.status_code, "INVALID_SIGN_IN" in answer.text) == (401, True)
    assert "access_denied" not in answer.text


def test_failed_sign_ins_are_limited(browser: Browser) -> None:
    answers = [browser.client.get("/openid/callback") for _ in range(7)]
    assert [answer.status_code for answer in answers] == [401] * 6 + [429]


@pytest.mark.parametrize("target", ["//evil.example", "https://evil.example", "/\\evil.example", "/openid/begin", "x"])
def test_signing_in_never_leads_to_another_site(browser: Browser, target: str) -> None:
    assert 'content="0; url=/"' in browser.sign_in(target).text


def test_a_key_that_the_provider_changed_is_asked_for(browser: Browser, provider: Provider) -> None:
    assert browser.sign_in().status_code == 200
    provider.rotate()
    assert browser.sign_in().status_code == 200


def test_a_wrong_client_secret_is_refused(world: World, provider: Provider) -> None:
    world.invite(mail=MAIL)
    assert Browser(world, client_of(provider, secret="guess")).sign_in().status_code == 401


def test_a_public_client_signs_in_by_pkce_alone_and_one_with_a_secret_needs_it(
    world: World, provider: Provider
) -> None:
    world.invite(mail=MAIL)
    without = [OpenIdClient(provider.issuer, name, "", CONSOLE) for name in (CLIENT_ID, PUBLIC_CLIENT_ID)]
    assert [Browser(world, client).sign_in().status_code for client in without] == [401, 200]


def test_without_the_provider_others_still_sign_in(world: World) -> None:
    browser = Browser(world, OpenIdClient(f"http://127.0.0.1:{free_port()}", CLIENT_ID, CLIENT_SECRET, CONSOLE))
    answer = browser.client.get("/openid/begin")
    assert (answer.status_code, "PROVIDER_UNAVAILABLE" in answer.text) == (503, True)
    sign_in(browser.client, PASSWORD)
    assert browser.client.get("/keys").status_code == 200


def test_an_issuer_that_calls_itself_otherwise_is_refused(provider: Provider) -> None:
    other = OpenIdClient(provider.issuer.replace("127.0.0.1", "localhost"), CLIENT_ID, CLIENT_SECRET, CONSOLE)
    with pytest.raises(Unavailable, match="another issuer"):
        other._metadata()


def test_the_secret_of_the_client_comes_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(f"{CLIENT_SECRET}\n")
    known = {"session_secret": "s" * 40, "oidc_client_id": CLIENT_ID, "public_url": "https://console.example"}
    configured = Settings(**known, oidc_issuer="https://id.example", oidc_client_secret_file=file)  # type: ignore[arg-type]
    found = find_provider(configured)
    assert found is not None and found._client_secret == CLIENT_SECRET
    assert find_provider(Settings(**known)) is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong",
    [
        {"oidc_issuer": "http://id.example"},
        {"oidc_issuer": "http://127.0.0.1.evil.example"},
        {"oidc_issuer": "https://id.example", "oidc_client_id": ""},
        {"oidc_issuer": "https://id.example", "public_url": ""},
        {"public_url": "http://console.example"},
    ],
)
def test_half_of_the_settings_or_an_address_without_tls_is_refused(wrong: dict[str, str]) -> None:
    known = {"session_secret": "s" * 40, "oidc_client_id": "c", "public_url": "https://console.example"}
    with pytest.raises(ValueError):
        Settings(**known | wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "address",
    [None, "", "http://id.example/token", "http://127.0.0.1:x@id.example/token", "http://localhost.id.example/token"],
)
def test_a_code_goes_only_to_an_address_over_tls(provider: Provider, address: object) -> None:
    client = client_of(provider)
    # The known document itself, which the client remembers.
    client._metadata()["token_endpoint"] = address
    with pytest.raises(Unavailable):
        client.identify(SignInAttempt("state", "nonce", "v" * 43, "/"), "code")
