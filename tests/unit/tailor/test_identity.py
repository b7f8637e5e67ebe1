"""Services' tokens: for one call, one service and one minute."""

import base64
import json
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tailor.errors import Reason, Unauthenticated
from tailor.rpc.identity import LEEWAY_SECONDS, LIFETIME_SECONDS, Identity, Trust, UsedTokens

KEY = Ed25519PrivateKey.generate()


def _trust() -> Trust:
    return Trust({"console": KEY.public_key()})


def _signed(**claims: Any) -> str:
    now = int(time.time())
    fields = {"iss": "console", "aud": "registry", "iat": now, "exp": now + 60, "jti": "id-1"} | claims
    return jwt.encode(fields, KEY, algorithm="EdDSA")


def _refuse(trust: Trust, token: str) -> None:
    with pytest.raises(Unauthenticated) as refused:
        trust.verify(token, "registry")
    assert refused.value.reason is Reason.INVALID_TOKEN


def test_a_token_is_accepted_once() -> None:
    trust, console = _trust(), Identity("console", KEY)
    tokens = [console.token("registry") for _ in range(3)]
    assert [trust.verify(token, "registry") for token in tokens] == ["console"] * 3
    for token in tokens:
        _refuse(trust, token)


@pytest.mark.parametrize("seconds", [LIFETIME_SECONDS + 1, 3600, 10 * 365 * 86_400])
def test_a_token_that_its_signer_made_valid_for_long_is_refused(seconds: int) -> None:
    now = int(time.time())
    _refuse(_trust(), _signed(iat=now, exp=now + seconds))


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": ["registry"]},
        {"aud": ["registry", "training"]},
        {"jti": "x" * 65},
        {"jti": 7},
        {"iat": "now"},
        {"exp": str(int(time.time()) + 60)},
        {"exp": float("inf")},
        {"iat": float("nan")},
        {"iat": int(time.time()) + 60},
    ],
)
def test_odd_claims_are_refused(claims: dict[str, Any]) -> None:
    _refuse(_trust(), _signed(**claims))


@pytest.mark.parametrize("header", [{"crit": ["b64"], "b64": False}, {"alg": "none"}, {"alg": "HS256"}])
def test_a_header_that_asks_for_another_way_of_verifying_is_refused(header: dict[str, Any]) -> None:
    first, payload, signature = Identity("console", KEY).token("registry").split(".")
    fields = json.loads(base64.urlsafe_b64decode(first + "==")) | header
    changed = base64.urlsafe_b64encode(json.dumps(fields).encode()).decode().rstrip("=")
    _refuse(_trust(), f"{changed}.{payload}.{signature}")
    # Also if the service's own key signs that header.
    signed = base64.urlsafe_b64encode(KEY.sign(f"{changed}.{payload}".encode())).decode().rstrip("=")
    _refuse(_trust(), f"{changed}.{payload}.{signed}")


@pytest.mark.parametrize("step", [-5, -15, -3600, -86_400])
def test_calls_go_on_at_once_after_the_clock_was_set_back(step: int) -> None:
    clock = [1_800_000_000.0]
    console = Identity("console", KEY, now=lambda: clock[0])
    trust = Trust({"console": KEY.public_key()}, now=lambda: clock[0])
    assert trust.verify(console.token("registry"), "registry") == "console"
    clock[0] += step
    assert trust.verify(console.token("registry"), "registry") == "console"


@pytest.mark.parametrize(("ahead", "is_accepted"), [(-9, True), (9, True), (-11, False), (71, False)])
def test_clocks_may_differ_by_ten_seconds(ahead: int, is_accepted: bool) -> None:
    console, trust = Identity("console", KEY), Trust({"console": KEY.public_key()}, now=lambda: time.time() + ahead)
    token = console.token("registry")
    if is_accepted:
        assert trust.verify(token, "registry") == "console"
    else:
        _refuse(trust, token)


def test_used_ids_are_kept_for_as_long_as_a_token_is_valid_and_then_forgotten() -> None:
    moment = [0.0]
    used = UsedTokens(now=lambda: moment[0])
    longest = LIFETIME_SECONDS + 2 * LEEWAY_SECONDS
    for begin in (0.0, 10.0, 75.0):
        moment[0] = begin
        assert used.use(f"from {begin}")
    moment[0] = longest - 0.1
    assert not used.use("from 0.0")
    moment[0] = longest + 70.0
    assert not used.use("from 75.0")
    moment[0] = 10 * longest
    assert used.use("from 75.0")
