"""The order in which a call asks replicas, and when it gives up."""

import pytest

from tailor.client.retries import REST_SECONDS, Ring
from tailor.errors import DeadlineExceeded, NotFound, Reason, ResourceExhausted, TailorError, Unavailable

ABSENT = Unavailable(Reason.UNAVAILABLE, "It does not answer.")


class Clock:
    def __init__(self) -> None:
        self.moment = 100.0

    def __call__(self) -> float:
        return self.moment


def test_replicas_rotate_and_one_that_did_not_answer_comes_last() -> None:
    clock = Clock()
    ring = Ring(3, clock)
    first = ring.order()
    assert sorted(first) == [0, 1, 2]
    assert ring.order() == [*first[1:], first[0]]
    ring.rest(first[2])
    assert ring.order() == [first[0], first[1], first[2]]
    clock.moment += REST_SECONDS
    assert [ring.order()[0] for _ in range(3)] == first


def test_asks_the_next_replica_at_once_and_repeats_rounds_after_growing_pauses() -> None:
    attempts = Ring(2, Clock()).attempts(60)
    asked, pauses = [attempts.replica], []
    with pytest.raises(Unavailable):
        while True:
            pauses.append(attempts.pause_after(ABSENT))
            asked.append(attempts.replica)
    assert [asked.count(replica) for replica in (0, 1)] == [5, 5]
    assert pauses[::2] == [0.0] * 5
    waits = pauses[1::2]
    assert len(waits) == 4
    assert all(low <= wait <= low * 1.25 for wait, low in zip(waits, (0.3, 0.75, 1.875, 4.6875), strict=True))


def test_waits_at_least_as_long_as_a_full_queue_asks() -> None:
    attempts = Ring(1, Clock()).attempts(60)
    assert 20 <= attempts.pause_after(ResourceExhausted(Reason.QUEUE_FULL, "Later.", retry_after_seconds=20.0)) <= 25


def test_gives_up_if_the_pause_would_outlast_the_deadline() -> None:
    attempts = Ring(1, Clock()).attempts(19)
    with pytest.raises(ResourceExhausted):
        attempts.pause_after(ResourceExhausted(Reason.QUEUE_FULL, "Later.", retry_after_seconds=20.0))


@pytest.mark.parametrize(
    "error", [NotFound(Reason.UNKNOWN_SPECIALIST, "None."), Unavailable(Reason.SERVICE_FAILED, "A fault.")]
)
def test_raises_an_error_that_no_retry_mends_at_once(error: TailorError) -> None:
    with pytest.raises(type(error)):
        Ring(3, Clock()).attempts(60).pause_after(error)


def test_asks_nothing_after_the_deadline() -> None:
    clock = Clock()
    attempts = Ring(1, clock).attempts(5)
    assert attempts.seconds_left() == 5
    clock.moment += 5
    with pytest.raises(DeadlineExceeded):
        attempts.seconds_left()
