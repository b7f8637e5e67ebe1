"""Hosts that do not answer are left alone for a while."""

import pytest

from services.ingestion.adapters.breaker import FAILURES, REST_SECONDS, Breaker
from services.ingestion.domain import File, Kind, Labels, Reference, Refused, Rejected, RejectionReason, Submission
from services.ingestion.handlers import FETCH_PAUSES, take_in
from tailor.errors import Reason, Unavailable
from tests.unit.ingestion.fakes import MemoryFetcher, make_intake, make_receipt

DEAD, ALIVE = "https://dead.example.com/a.md", "https://alive.example.com/a.md"
FILE = File(b"# A\n\nwords\n", "a.md")


class World:
    def __init__(self, *failures: Exception) -> None:
        self.seconds = 0.0
        self.fetcher = MemoryFetcher({DEAD: FILE, ALIVE: FILE}, *failures)
        self.breaker = Breaker(self.fetcher, lambda: self.seconds)

    def fetch(self, uri: str = DEAD) -> File:
        return self.breaker.fetch(Reference(uri), 2**20)


def silent(count: int) -> list[Exception]:
    return [Unavailable(Reason.HOST_UNAVAILABLE, "The host did not answer.") for _ in range(count)]


def test_a_queue_behind_a_dead_host_waits_for_its_first_document_alone() -> None:
    world, waited = World(*silent(100)), []
    intake, _, _ = make_intake(fetcher=world.breaker, sleep=waited.append)
    outcomes = [
        take_in(intake, make_receipt(str(n), Submission(str(n), Kind.DOCUMENT, Labels(), Reference(DEAD))))
        for n in range(20)
    ]
    assert all(isinstance(each, Refused) and each.reason is RejectionReason.UNREACHABLE for each in outcomes)
    assert waited == list(FETCH_PAUSES) and len(world.fetcher.asked) == FAILURES
    assert "left alone" in outcomes[-1].hint if isinstance(outcomes[-1], Refused) else False


def test_other_hosts_are_still_asked() -> None:
    world = World(*silent(FAILURES))
    for _ in range(FAILURES):
        with pytest.raises(Unavailable):
            world.fetch()
    with pytest.raises(Rejected):
        world.fetch()
    assert world.fetch(ALIVE) == FILE


def test_after_its_rest_one_try_decides() -> None:
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
def test_a_host_that_answers_is_not_left_alone(answer: Exception) -> None:
    world = World(*silent(FAILURES - 1), answer, *silent(FAILURES - 1))
    for _ in range(2 * FAILURES - 1):
        with pytest.raises((Unavailable, Rejected)):
            world.fetch()
    assert world.fetch() == FILE


def test_what_was_refused_without_asking_says_nothing_about_the_host() -> None:
    world = World(*silent(FAILURES - 1), Rejected(RejectionReason.NOT_ALLOWED, "user name"), *silent(1))
    for _ in range(FAILURES + 1):
        with pytest.raises((Unavailable, Rejected)):
            world.fetch()
    with pytest.raises(Rejected, match="left alone"):
        world.fetch()


def test_what_is_no_address_is_for_the_fetcher_to_refuse() -> None:
    world = World()
    for _ in range(FAILURES + 1):
        with pytest.raises(Rejected, match="not allowed"):
            world.fetch("https://[")
