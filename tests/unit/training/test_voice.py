"""What a worker says, and what it does when it is not heard."""

import time

import pytest

from services.training.methods.turns import Turns
from services.training.worker.log_lines import LogLines
from services.training.worker.reporter import LOST_SECONDS, Voice
from tailor.api.events.v1 import models_pb2
from tailor.api.training.v1 import training_pb2 as pb
from tailor.errors import Aborted, Reason, TailorError, Unavailable


class FakeService:
    """Answers what the test says."""

    def __init__(self, answer: bool | TailorError = False) -> None:
        self.answer = answer
        self.heard: list[pb.ReportProgressRequest] = []

    def report(self, request: pb.ReportProgressRequest) -> bool:
        self.heard.append(request)
        if isinstance(self.answer, TailorError):
            raise self.answer
        return self.answer


def spoken(service: FakeService) -> Voice:
    voice = Voice(service, "run_1", 3)
    voice.start()
    voice.progress(models_pb2.RunProgressed(step=1))
    voice.close()
    return voice


def test_says_everything_before_the_last_word() -> None:
    service = FakeService()
    voice = Voice(service, "run_1", 3)
    voice.start()
    for step in range(20):
        voice.progress(models_pb2.RunProgressed(step=step))
    assert voice.trained(models_pb2.AdapterTrained(digest="a1")) is False
    assert [request.progress.step for request in service.heard[:-1]] == list(range(20))
    assert service.heard[-1].trained.digest == "a1"
    assert {request.epoch for request in service.heard} == {3}


@pytest.mark.parametrize("answer", [True, Aborted(Reason.STALE_EPOCH, "stop")])
def test_stops_when_cancelled_or_superseded(answer: bool | TailorError) -> None:
    assert spoken(FakeService(answer)).must_stop


def test_lost_service_does_not_stop_it_at_once() -> None:
    voice = spoken(FakeService(Unavailable(Reason("SERVICE_UNAVAILABLE"), "away")))
    assert not voice.must_stop
    assert not voice.lost


def test_service_lost_for_two_minutes_ends_the_worker() -> None:
    times = iter([0.0, LOST_SECONDS - 1, LOST_SECONDS + 1])
    voice = Voice(FakeService(), "run_1", 1, clock=lambda: next(times))
    assert not voice.lost
    assert voice.lost


def test_log_goes_with_the_reports_without_tracebacks() -> None:
    lines = LogLines()
    lines(None, "info", {"event": "training", "rows": 7, "level": "info", "module": "x", "exception": "a secret"})
    service = FakeService()
    voice = Voice(service, "run_1", 3, lines)
    voice.start()
    voice.trained(models_pb2.AdapterTrained(digest="a1"))
    log, last = service.heard
    assert [(line.level, line.message) for line in log.log.lines] == [("info", "training rows=7")]
    assert log.log.lines[0].HasField("create_time")
    assert last.trained.digest == "a1"


def test_log_that_nobody_takes_drops_its_oldest_lines() -> None:
    lines = LogLines()
    for number in range(1200):
        lines(None, "info", {"event": f"{number} " + "x" * 2000})
    taken = lines.take()
    assert (len(taken), taken[0].message[:4], len(taken[0].message)) == (100, "200 ", 1000)


def test_turns_exclude_each_other(tmp_path: object) -> None:
    from pathlib import Path
    from threading import Thread

    lock = Path(str(tmp_path)) / "lock"
    one, other = Turns(lock), Turns(lock)
    one.take()
    order: list[str] = []

    def wait() -> None:
        other.take()
        order.append("other")
        other.give()

    thread = Thread(target=wait)
    thread.start()
    time.sleep(0.1)
    order.append("one")
    one.give()
    thread.join()
    assert order == ["one", "other"]
    Turns(None).take()
