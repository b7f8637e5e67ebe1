"""Signing in, sessions, and the headers of every response."""

import threading
import time
from contextlib import suppress
from typing import Any

import pytest
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from pydantic import SecretStr

from services.console.domain import Role
from services.console.web.app import MODULES
from services.console.web.login import local_path
from services.console.web.sessions import (
    COOKIE,
    LIFETIME_SECONDS,
    MAX_OPEN_SESSIONS,
    BrowserSession,
    OpenSessions,
    SessionAuthenticator,
    SessionCodec,
    Throttle,
)
from tailor.errors import NotFound, Reason, ResourceExhausted, TailorError, Unauthenticated, Unavailable
from tests.unit.console.people_fakes import FakePeople
from tests.unit.console.world import PASSWORD, World, csrf, settings, sign_in

OPEN = {"/login", "/logout", "/invitation", "/openid/begin", "/openid/callback"}


def test_every_page_requires_signing_in() -> None:
    browser = World().browser()
    routes = [route for module in MODULES for route in module.router.routes]
    routes = [route for route in routes if isinstance(route, APIRoute) and route.path not in OPEN]
    assert len(routes) > 50
    for route in routes:
        path = route.path.replace("{", "").replace("}", "")
        for method in route.methods:
            answer = browser.request(method, path)
            if path.startswith("/api/"):
                assert answer.status_code == 401, path
            else:
                assert (answer.status_code, answer.headers["location"][:6]) == (303, "/login"), path


def test_there_are_no_api_docs() -> None:
    browser = World().browser()
    assert [browser.get(path).status_code for path in ("/docs", "/redoc", "/openapi.json")] == [404, 404, 404]


def test_password_signs_the_operator_in_and_returns_to_the_requested_page() -> None:
    browser = World().browser()
    answer = browser.post("/login", data={"secret": PASSWORD, "csrf": csrf(browser), "next": "/runs"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/runs")
    assert "operator" in browser.get("/runs").text


def test_wrong_password_is_refused_and_attempts_are_limited() -> None:
    browser = World().browser()
    form = {"secret": "wrong", "csrf": csrf(browser)}
    answers = [browser.post("/login", data=form) for _ in range(7)]
    assert [answer.status_code for answer in answers] == [401] * 6 + [429]
    assert "WRONG_SECRET" in answers[0].text
    assert answers[-1].headers["retry-after"] == "60"
    right = browser.post("/login", data={"secret": PASSWORD, "csrf": csrf(browser)})
    assert right.status_code == 429


def test_unknown_key_counts_as_a_failed_attempt() -> None:
    browser = World().browser()
    form = {"secret": "tlr_guess", "csrf": csrf(browser)}
    assert [browser.post("/login", data=form).status_code for _ in range(7)][-2:] == [401, 429]


def test_sign_in_fails_with_503_without_the_registry() -> None:
    world = World()
    browser = world.browser()
    world.registry.down = True
    answer = browser.post("/login", data={"secret": "tlr_any", "csrf": csrf(browser)})
    assert answer.status_code == 503
    assert "registry does not answer" in answer.text


def test_api_key_signs_in_with_its_role() -> None:
    browser = World().signed_in(Role.ENGINEER)
    assert "engineer key" in browser.get("/flow").text


def test_a_missing_page_still_has_the_visitors_links() -> None:
    assert '<a href="/datasets">Training</a>' in World().signed_in(Role.ENGINEER).get("/nowhere").text


def test_a_session_of_a_key_outlives_the_console() -> None:
    world = World()
    browser = world.signed_in(Role.ENGINEER)
    restarted = world.browser()
    restarted.cookies.set(COOKIE, browser.cookies[COOKIE])
    assert restarted.get("/runs").status_code == 200
    browser.post("/logout")
    assert world.people.sessions == {}
    again = world.browser()
    again.cookies.set(COOKIE, browser.cookies.get(COOKIE) or restarted.cookies[COOKIE])
    assert again.get("/runs").headers["location"].startswith("/login")


def test_sign_out_fails_aloud_while_the_registry_does_not_answer() -> None:
    world = World()
    browser = world.signed_in(Role.ENGINEER)
    world.registry.down = True
    assert browser.post("/logout").status_code == 503
    world.registry.down = False
    assert browser.get("/runs").status_code == 200


def test_revoked_key_ends_the_session() -> None:
    world, now = World(), [0.0]
    secret = world.key(Role.EXPERT)
    authenticator = SessionAuthenticator(None, world.services.people, now=lambda: now[0])
    visitor, session = authenticator.admit(secret, "10.0.0.1")
    assert authenticator.refresh(session) == visitor
    world.registry.visitors.clear()
    assert authenticator.refresh(session) == visitor
    now[0] = 2.0
    with pytest.raises(Unauthenticated, match="UNKNOWN_SESSION"):
        authenticator.refresh(session)


def test_password_is_refused_if_none_is_set() -> None:
    authenticator = SessionAuthenticator(None, World().services.people)
    with pytest.raises(Unauthenticated):
        authenticator.admit("", "127.0.0.1")


def test_failed_attempts_expire_after_a_minute() -> None:
    now = [0.0]
    throttle = Throttle(now=lambda: now[0])
    for _ in range(6):
        _fail(throttle, "10.0.0.1")
    with pytest.raises(ResourceExhausted):
        _fail(throttle, "10.0.0.1")
    _fail(throttle, "10.0.0.2")
    now[0] = 61.0
    _fail(throttle, "10.0.0.1")


def _fail(throttle: Throttle, address: str) -> None:
    with suppress(Unauthenticated), throttle.attempt(address):
        raise Unauthenticated(Reason.WRONG_SECRET, "wrong")


@pytest.mark.parametrize("error", [None, Unavailable(Reason.UNAVAILABLE, "registry does not answer.")])
def test_only_failed_attempts_are_counted(error: TailorError | None) -> None:
    throttle = Throttle()
    for _ in range(100):
        with suppress(Unavailable), throttle.attempt("10.0.0.1"):
            if error:
                raise error


def test_two_hundred_simultaneous_guesses_are_six() -> None:
    guesses: list[str] = []
    together = threading.Barrier(200)

    class Slow(FakePeople):
        def BeginSession(self, request: Any, context: Any) -> Any:
            guesses.append(request.key_sha256)
            time.sleep(0.2)
            raise NotFound(Reason.UNKNOWN_CREDENTIAL, "unknown")

    world = World()
    world.people = Slow(world.registry)
    authenticator = SessionAuthenticator(None, world.services.people)

    def guess(number: int) -> None:
        together.wait()
        with suppress(Unauthenticated, ResourceExhausted):
            authenticator.admit(f"tlr_{number}", "10.0.0.1")

    threads = [threading.Thread(target=guess, args=(number,)) for number in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(guesses) == 6


def test_cookie_is_http_only_strict_and_lasts_eight_hours() -> None:
    browser = World().browser()
    cookie = browser.get("/login").headers["set-cookie"]
    assert all(part in cookie for part in (COOKIE, "HttpOnly", "SameSite=strict", "Max-Age=28800", "Path=/"))
    assert "Secure" not in cookie
    secure = World().browser("https://testserver").get("/login")
    assert "Secure" in secure.headers["set-cookie"]
    assert "max-age" in secure.headers["strict-transport-security"]


def test_forged_cookie_is_ignored() -> None:
    forged = SessionCodec(SecretStr("x" * 40)).write(BrowserSession("token", "secret", by_password=True))
    browser = World().browser()
    browser.cookies.set(COOKIE, forged)
    assert browser.get("/").headers["location"].startswith("/login")
    codec = SessionCodec(SecretStr("y" * 40))
    session = BrowserSession("token", "session_1", by_password=True)
    written = codec.write(session)
    assert codec.read(written) == session
    assert codec.read(written[:-2]) is None


def test_session_changes_at_sign_in_and_ends_at_sign_out() -> None:
    browser = World().browser()
    before = csrf(browser)
    sign_in(browser, PASSWORD)
    assert csrf(browser, "/ask") != before
    assert browser.post("/logout").headers["location"] == "/login"
    assert browser.get("/").headers["location"].startswith("/login")


@pytest.mark.parametrize("role", [None, Role.OPERATOR])
def test_a_copied_cookie_opens_nothing_after_sign_out(role: Role | None) -> None:
    world = World()
    browser = world.browser()
    sign_in(browser, PASSWORD if role is None else world.key(role))
    copied = browser.cookies[COOKIE]
    assert browser.get("/keys").status_code == 200
    browser.post("/logout")
    browser.cookies.set(COOKIE, copied)
    assert browser.get("/keys").headers["location"].startswith("/login")
    assert browser.post("/api/ask", json={"model": "base", "prompt": "x"}).status_code in {401, 403}


def test_signing_out_ends_only_this_session() -> None:
    browser = World().browser()
    sign_in(browser, PASSWORD)
    elsewhere = TestClient(browser.app, follow_redirects=False)
    sign_in(elsewhere, PASSWORD)
    browser.post("/logout")
    assert elsewhere.get("/keys").status_code == 200


def test_a_cookie_that_the_console_signed_for_no_open_session_opens_nothing() -> None:
    world = World()
    browser = world.browser()
    codec = SessionCodec(settings().session_secret)
    for by_password in (True, False):
        browser.cookies.set(COOKIE, codec.write(BrowserSession("token", "another", by_password)))
        assert browser.get("/keys").headers["location"].startswith("/login")


def test_sessions_end_after_eight_hours_and_are_limited_in_number() -> None:
    now = [0.0]
    sessions = OpenSessions(now=lambda: now[0])
    first = sessions.begin()
    assert sessions.is_open(first) and not sessions.is_open("") and not sessions.is_open("guess")
    now[0] = LIFETIME_SECONDS
    assert not sessions.is_open(first)
    opened = [sessions.begin() for _ in range(MAX_OPEN_SESSIONS + 1)]
    assert [sessions.is_open(opened[0]), sessions.is_open(opened[1])] == [False, True]


@pytest.mark.parametrize(
    "path", ["/promote", "/rollback", "/canary/start", "/canary/stop", "/logout", "/api/ask", "/api/judgements"]
)
def test_post_without_the_csrf_token_is_refused(path: str) -> None:
    browser = World().browser()
    sign_in(browser, PASSWORD)
    del browser.headers["x-csrf-token"]
    for sent in ({}, {"x-csrf-token": "wrong"}):
        answer = browser.post(path, headers=sent)
        assert answer.status_code == 403
        assert "INVALID_CSRF_TOKEN" in answer.text


def test_sign_in_without_the_csrf_token_is_refused() -> None:
    browser = World().browser()
    csrf(browser)
    assert browser.post("/login", data={"secret": PASSWORD, "csrf": "wrong"}).status_code == 403


@pytest.mark.parametrize("target", ["//evil.example", "/\\evil.example", "https://evil.example", "/api/flow", ""])
def test_sign_in_never_redirects_to_another_site(target: str) -> None:
    assert local_path(target) == "/"


@pytest.mark.parametrize("path", ["/login", "/nowhere", "/static/console.js", "/static/nothing.js", "/api/flow"])
def test_every_answer_has_the_security_headers(path: str) -> None:
    answer = World().browser().get(path)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe-inline" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == ("no-cache" if path.startswith("/static/") else "no-store")


def test_bodies_over_the_limit_are_refused_without_reading() -> None:
    browser = World().browser()
    assert browser.post("/login", content=b"x" * 300_000).status_code == 413
    assert browser.post("/login", content=iter([b"x"])).status_code == 413


@pytest.mark.parametrize("kind", ["multipart/form-data", " Multipart/Form-Data", "multipart/mixed"])
def test_a_form_in_parts_is_refused_before_its_sender_chooses_a_slow_codec(kind: str) -> None:
    browser = World().browser()
    head = b'--x\r\nContent-Disposition: form-data; name="secret"\r\n\r\n'
    # Decoding 250,000 letters of Punycode takes 20 seconds of processor time.
    body = head + b"-" + b"b" * 200_000 + b"\r\n--x--\r\n"
    began = time.process_time()
    answer = browser.post("/login", content=body, headers={"content-type": f"{kind}; boundary=x; charset=punycode"})
    assert answer.status_code == 415
    assert time.process_time() - began < 4
