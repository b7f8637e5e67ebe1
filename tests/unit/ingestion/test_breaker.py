"""Hosts that do not answer are not called for a while."""

import pytest

from services.ingestion.adapters.breaker import FAILURES, REST_SECONDS, CircuitBreaker
from services.ingestion.domain import (
    File,
    FileReference,
    Rejected,
    RejectionReason,
)
from tailor.errors import Reason, Unavailable
from tests.ingestion import MemoryFetcher

DEAD, ALIVE = "https://dead.example.com/a.md", "https://alive.example.com/a.md"
FILE = File(b"# A\n\nwords\n", "a.md")


class World:
    def __init__(self, *failures: Exception) -> None:
        self.seconds = 0.0
        self.fetcher = MemoryFetcher({DEAD: FILE, ALIVE: FILE}, *failures)
        self.breaker = CircuitBreaker(self.fetcher, lambda: self.seconds)

    def fetch(self, uri: str = DEAD) -> File:
        return self.breaker.fetch(FileReference(uri), 2**20)


def silent(count: int) -> list[Exception]:
    return [Unavailable(Reason.HOST_UNAVAILABLE, "The host did not answer.") for _ in range(count)]


def test_other_hosts_are_still_called() -> None:
    world = World(*silent(FAILURES))
    for _ in range(FAILURES):
        with pytest.raises(Unavailable):
            world.fetch()
    with pytest.raises(Rejected):
        world.fetch()
    assert world.fetch(ALIVE) == FILE


def test_after_its_rest_one_attempt_decides() -> None:
    world = World(*silent(FAILURES + 1))
    for _ in range(FAILURES):
        with pytest.raises(Unavailable):
            world.fetch()
    world.seconds = REST_SECONDS
    with pytest.raises(Unavailable):
        world.fetch()
    with pytest.raises(Rejected):
        world.fetch()
    world.seconds = 2 * REST_SECONDS
    assert world.fetch() == FILE == world.fetch()


@pytest.mark.parametrize(
    "answer", [Unavailable(Reason.HOST_FAILED, "503"), Rejected(RejectionReason.UNREACHABLE, "404")]
)
def test_a_host_that_answers_is_not_paused(answer: Exception) -> None:
    world = World(*silent(FAILURES - 1), answer, *silent(FAILURES - 1))
    for _ in range(2 * FAILURES - 1):
        with pytest.raises((Unavailable, Rejected)):
            world.fetch()
    assert world.fetch() == FILE


def test_a_rejection_without_a_call_does_not_count_for_the_host() -> None:
    world = World(*silent(FAILURES - 1), Rejected(RejectionReason.NOT_ALLOWED, "user name"), *silent(1))
    for _ in range(FAILURES + 1):
        with pytest.raises((Unavailable, Rejected)):
            world.fetch()
    with pytest.raises(Rejected, match="paused"):
        world.fetch()


def test_an_invalid_address_is_left_to_the_fetcher() -> None:
    world = World()
    for _ in range(FAILURES + 1):
        with pytest.raises(Rejected, match="not allowed"):
            world.fetch("https://[")
