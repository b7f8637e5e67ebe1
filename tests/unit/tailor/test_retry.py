"""Retrying calls."""

import threading
from collections.abc import Callable

import pytest

from tailor.errors import InvalidArgument, Reason, TailorError, Unavailable, Unimplemented
from tailor.retry import Stopped, retry


class Flaky:
    """Fails `failures` times, then answers 7."""

    def __init__(self, failures: int, error: Exception | None = None) -> None:
        self.calls = 0
        self._failures = failures
        self._error = error or Unavailable(Reason.UNAVAILABLE, "down")

    def __call__(self) -> int:
        self.calls += 1
        if self.calls <= self._failures:
            raise self._error
        return 7


def waits_of(failures: int, retried: Callable[[Callable[[float], None]], object]) -> list[float]:
    waits: list[float] = []
    retried(waits.append)
    assert len(waits) == failures
    return waits


def test_returns_the_first_result() -> None:
    work = Flaky(3)
    assert retry(work, sleep=lambda _: None) == 7
    assert work.calls == 4


@pytest.mark.parametrize("error", [InvalidArgument(Reason.INVALID_REQUEST, "wrong"), ZeroDivisionError()])
def test_raises_any_other_error_at_once(error: Exception) -> None:
    work = Flaky(1, error)
    with pytest.raises(type(error)):
        retry(work, sleep=lambda _: None)
    assert work.calls == 1


def test_raises_the_last_error_after_the_given_attempts() -> None:
    work = Flaky(9)
    with pytest.raises(Unavailable):
        retry(work, attempts=4, sleep=lambda _: None)
    assert work.calls == 4


def test_gives_up_at_the_first_failure_after_the_given_time() -> None:
    work = Flaky(9)
    with pytest.raises(Unavailable):
        retry(work, give_up_seconds=0, sleep=lambda _: None)
    assert work.calls == 1


def test_waits_grow_to_the_maximum_and_are_shortened_by_up_to_half() -> None:
    waits = waits_of(5, lambda sleep: retry(Flaky(5), initial_seconds=1, factor=3, max_seconds=20, sleep=sleep))
    assert all(full / 2 <= wait <= full for wait, full in zip(waits, (1, 3, 9, 20, 20), strict=True))


def test_survives_any_number_of_failures() -> None:
    waits = waits_of(2000, lambda sleep: retry(Flaky(2000), max_seconds=2, sleep=sleep))
    assert waits[-1] <= 2


def test_waits_at_least_as_long_as_the_error_asks() -> None:
    error = Unavailable(Reason.UNAVAILABLE, "later", retry_after_seconds=30)
    assert waits_of(1, lambda sleep: retry(Flaky(1, error), sleep=sleep)) == [30]


def test_reports_each_failed_attempt_before_its_wait() -> None:
    reports: list[tuple[TailorError, int]] = []
    error = Unavailable(Reason.UNAVAILABLE, "down")
    retry(Flaky(2, error), on_wait=lambda failure, attempt: reports.append((failure, attempt)), sleep=lambda _: None)
    assert reports == [(error, 1), (error, 2)]


def test_stop_ends_a_wait_at_once() -> None:
    stop = threading.Event()
    work = Flaky(9)
    with pytest.raises(Stopped):
        retry(work, stop=stop, initial_seconds=600, max_seconds=600, on_wait=lambda *_: stop.set())
    assert work.calls == 1


def test_no_handler_of_errors_swallows_a_stop() -> None:
    assert not issubclass(Stopped, Exception)


class Missing(Unimplemented):
    """A call that a service does not have."""

    retry_seconds = 0.2


def test_a_call_that_the_service_does_not_have_is_retried_only_briefly() -> None:
    # A replica of an earlier version may just be replaced.
    assert retry(Flaky(2, Unimplemented(Reason.UNIMPLEMENTED, "old")), initial_seconds=0.01) == 7
    work = Flaky(10**6, Missing(Reason.UNIMPLEMENTED, "old"))
    with pytest.raises(Missing):
        retry(work, initial_seconds=0.01, max_seconds=0.05)
    assert 1 <= work.calls < 100
    assert Unimplemented.retryable and Unimplemented.retry_seconds == 30
