"""What is known of a key, and for how long."""

import pytest

from tailor.errors import NotFound, Reason, TailorError, Unauthenticated, Unavailable
from tailor.rpc.auth import Authenticator, Caller
from tailor.rpc.identity import Trust


class Registry:
    """Knows one key; `error` is what it answers instead."""

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


def test_a_revoked_key_ends_within_seconds_for_new_calls_and_running_ones(registry: Registry) -> None:
    caller = registry.authenticator.authenticate("tlr_x")
    registry.error = NotFound(Reason.UNKNOWN_KEY, "revoked")
    registry.moment = 2.9
    registry.authenticator.still_admits(caller, "tlr_x")
    registry.moment = 3.0
    with pytest.raises(Unauthenticated):
        registry.authenticator.still_admits(caller, "tlr_x")
    with pytest.raises(Unauthenticated):
        registry.authenticator.authenticate("tlr_x")


def test_a_known_key_outlives_a_short_absence_of_the_registry_and_no_longer_one(registry: Registry) -> None:
    registry.authenticator.authenticate("tlr_x")
    registry.error = Unavailable(Reason.UNAVAILABLE, "registry does not answer.")
    for registry.moment in (3.0, 10.0, 29.9):
        assert registry.authenticator.authenticate("tlr_x").key_id == "key_1"
    registry.moment = 30.0
    with pytest.raises(Unavailable):
        registry.authenticator.authenticate("tlr_x")
    registry.error = None
    assert registry.authenticator.authenticate("tlr_x").key_id == "key_1"


def test_an_absent_registry_is_asked_once_a_second_not_once_a_call(registry: Registry) -> None:
    registry.authenticator.authenticate("tlr_x")
    registry.error = Unavailable(Reason.UNAVAILABLE, "registry does not answer.")
    registry.moment = 4.0
    for _ in range(5):
        registry.authenticator.authenticate("tlr_x")
    assert registry.asked == 2


def test_an_unknown_key_is_not_believed_while_the_registry_is_away(registry: Registry) -> None:
    registry.error = NotFound(Reason.UNKNOWN_KEY, "unknown")
    with pytest.raises(Unauthenticated):
        registry.authenticator.authenticate("tlr_x")
    registry.error = Unavailable(Reason.UNAVAILABLE, "registry does not answer.")
    registry.moment = 4.0
    with pytest.raises(Unauthenticated):
        registry.authenticator.authenticate("tlr_x")
    with pytest.raises(Unavailable):
        registry.authenticator.authenticate("tlr_never_seen")


def test_a_running_call_goes_on_while_the_registry_is_away_but_a_new_one_does_not(registry: Registry) -> None:
    caller = registry.authenticator.authenticate("tlr_x")
    registry.error = Unavailable(Reason.UNAVAILABLE, "registry does not answer.")
    registry.moment = 100.0
    registry.authenticator.still_admits(caller, "tlr_x")
    with pytest.raises(Unavailable):
        registry.authenticator.authenticate("tlr_x")
