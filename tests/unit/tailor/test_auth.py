"""Verifying API keys, and how long the answer is remembered."""

import jwt
import pytest

from tailor.errors import NotFound, Reason, TailorError, Unauthenticated, Unavailable
from tailor.rpc.auth import Authenticator, Caller
from tailor.rpc.identity import Trust


class Registry:
    """Verifies every key, unless `error` is set. Counts how often it was asked; `moment` is the clock."""

    def __init__(self) -> None:
        self.error: TailorError | None = None
        self.asked = 0
        self.moment = 0.0
        self.authenticator = Authenticator("inference", Trust({}), self._verify, now=lambda: self.moment)

    def _verify(self, _: str) -> Caller:
        self.asked += 1
        if self.error:
            raise self.error
        return Caller("key", "team", "ROLE_CALLER", key_id="key_1")


@pytest.fixture
def registry() -> Registry:
    return Registry()


def test_a_revoked_key_is_refused_within_seconds_for_new_and_running_calls(registry: Registry) -> None:
    caller = registry.authenticator.authenticate("tlr_x")
    registry.error = NotFound(Reason.UNKNOWN_KEY, "revoked")
    registry.moment = 2.9
    registry.authenticator.still_admits(caller, "tlr_x")
    registry.moment = 3.0
    with pytest.raises(Unauthenticated):
        registry.authenticator.still_admits(caller, "tlr_x")
    with pytest.raises(Unauthenticated):
        registry.authenticator.authenticate("tlr_x")


def test_a_verified_key_stays_valid_for_thirty_seconds_without_the_registry(registry: Registry) -> None:
    registry.authenticator.authenticate("tlr_x")
    registry.error = Unavailable(Reason.UNAVAILABLE, "registry does not answer.")
    for registry.moment in (3.0, 10.0, 29.9):
        assert registry.authenticator.authenticate("tlr_x").key_id == "key_1"
    registry.moment = 30.0
    with pytest.raises(Unavailable):
        registry.authenticator.authenticate("tlr_x")
    registry.error = None
    assert registry.authenticator.authenticate("tlr_x").key_id == "key_1"


def test_asks_an_absent_registry_once_per_second_instead_of_once_per_call(registry: Registry) -> None:
    registry.authenticator.authenticate("tlr_x")
    registry.error = Unavailable(Reason.UNAVAILABLE, "registry does not answer.")
    registry.moment = 4.0
    for _ in range(5):
        registry.authenticator.authenticate("tlr_x")
    assert registry.asked == 2


def test_refuses_an_unknown_key_while_the_registry_is_absent(registry: Registry) -> None:
    registry.error = NotFound(Reason.UNKNOWN_KEY, "unknown")
    with pytest.raises(Unauthenticated):
        registry.authenticator.authenticate("tlr_x")
    registry.error = Unavailable(Reason.UNAVAILABLE, "registry does not answer.")
    registry.moment = 4.0
    with pytest.raises(Unauthenticated):
        registry.authenticator.authenticate("tlr_x")
    with pytest.raises(Unavailable):
        registry.authenticator.authenticate("tlr_never_seen")


def test_without_the_registry_a_running_call_continues_but_a_new_one_fails(registry: Registry) -> None:
    caller = registry.authenticator.authenticate("tlr_x")
    registry.error = Unavailable(Reason.UNAVAILABLE, "registry does not answer.")
    registry.moment = 100.0
    registry.authenticator.still_admits(caller, "tlr_x")
    with pytest.raises(Unavailable):
        registry.authenticator.authenticate("tlr_x")


@pytest.mark.parametrize("token", ["nonsense", "sk-proj-1234", "TLR_x", "a.b.c"])
def test_a_token_that_is_neither_key_nor_signed_is_reported_as_a_wrong_key(registry: Registry, token: str) -> None:
    with pytest.raises(Unauthenticated) as refused:
        registry.authenticator.authenticate(token)
    assert refused.value.reason is Reason.INVALID_KEY
    assert "tlr_" in refused.value.message and token not in refused.value.message
    assert registry.asked == 0


def test_a_signed_token_of_another_issuer_is_reported_as_a_wrong_service(registry: Registry) -> None:
    token = jwt.encode({"iss": "console"}, "x" * 32, algorithm="HS256")
    with pytest.raises(Unauthenticated) as refused:
        registry.authenticator.authenticate(token)
    assert refused.value.reason is Reason.UNKNOWN_SERVICE
