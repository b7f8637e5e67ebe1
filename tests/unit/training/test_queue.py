"""Which run is next, what the others wait for, and for how long after a lost worker."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

from services.training.domain import Run, RunKey
from services.training.queue import Limits, Queue
from services.training.settings import Settings
from services.training.transitions import BACKOFF_SECONDS, JITTER, lose_worker
from tests.unit.training.fakes import START, make_run


def run(specialist: str, **changes: Any) -> Run:
    return make_run(run_id=f"run_{specialist}", key=RunKey(specialist, "d1", "tiny", "r1"), **changes)


def test_the_highest_priority_goes_first_then_the_oldest_also_after_a_preemption() -> None:
    later = START + timedelta(seconds=1)
    runs = [run("young", create_time=later), run("low", priority=-5, epoch=1), run("old"), run("high", priority=5)]
    queue = Queue(runs, Limits(None), (), later)
    assert [queued.key.specialist for queued in queue.queued] == ["high", "old", "young", "low"]


def test_only_the_limit_per_specialist_applies_with_another_queue() -> None:
    queue = Queue([], Limits(None, 1), (), START)
    failures = [queue.take(run(specialist)) for specialist in ("a", "b", "a")]
    assert [failure and failure.reason for failure in failures] == [None, None, "WAITS_FOR_SPECIALIST"]
    assert Settings().limits() == Limits(1, 1)
    assert Settings(max_runs=4, max_runs_per_specialist=2).limits() == Limits(4, 2)
    kueue = Settings(launcher="kubernetes", kubernetes_queue="gpus", max_runs_per_specialist=2)
    assert kueue.limits() == Limits(None, 2)
    assert Settings(launcher="kubernetes", max_runs=4).limits() == Limits(4, 1)


def test_a_lost_worker_is_replaced_with_a_growing_delay_that_differs_from_run_to_run() -> None:
    lost = run("a")
    for wait in BACKOFF_SECONDS[:4]:
        lost = lose_worker(lost, "WORKER_DIED", START)
        assert lost.not_before is not None
        assert wait <= (lost.not_before - START).total_seconds() <= wait * (1 + JITTER)
        assert f"{lost.not_before:%H:%M:%S} UTC" in lost.message
    others = [lose_worker(replace(run(name), failures=3), "WORKER_DIED", START) for name in ("a", "b", "c")]
    assert len({other.not_before for other in others}) == 3


def test_only_workers_that_were_killed_are_said_to_lack_memory() -> None:
    worn = replace(run("a"), failures=4)
    for code, words in ((-9, "lack of memory"), (137, "lack of memory"), (None, "lack of memory"), (1, "exit code 1")):
        assert words in lose_worker(worn, "WORKER_DIED", START, code).message
    assert "memory" not in lose_worker(worn, "WORKER_DIED", START, 1).message
