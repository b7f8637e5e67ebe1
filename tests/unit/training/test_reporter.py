"""A worker's reports, and its behaviour when the service does not answer."""

import pytest

from services.training.worker.reporter import LOST_SECONDS, LogLines, NullReporter, Reporter
from tailor.api.events.v1 import models_pb2
from tailor.api.training.v1 import training_pb2 as pb
from tailor.errors import Aborted, Reason, TailorError, Unavailable


class FakeService:
    """Answers as the test says, and records requests."""

    def __init__(self, answer: bool | TailorError = False) -> None:
        self.answer = answer
        self.requests: list[pb.ReportProgressRequest] = []

    def __call__(self, request: pb.ReportProgressRequest) -> bool:
        self.requests.append(request)
        if isinstance(self.answer, TailorError):
            raise self.answer
        return self.answer


def report_once(service: FakeService) -> Reporter:
    reporter = Reporter(service, "run_1", 3)
    reporter.start()
    reporter.report_progress(models_pb2.RunProgressed(step=1))
    reporter.close()
    return reporter


def test_all_progress_is_reported_before_the_adapter() -> None:
    service = FakeService()
    reporter = Reporter(service, "run_1", 3)
    reporter.start()
    for step in range(20):
        reporter.report_progress(models_pb2.RunProgressed(step=step))
    assert reporter.report_trained(models_pb2.AdapterTrained(digest="a1")) is False
    assert [request.progress.step for request in service.requests[:-1]] == list(range(20))
    assert service.requests[-1].trained.digest == "a1"
    assert {request.epoch for request in service.requests} == {3}


@pytest.mark.parametrize("answer", [True, Aborted(Reason.STALE_EPOCH, "stop")])
def test_worker_must_stop_when_cancelled_or_superseded(answer: bool | TailorError) -> None:
    assert report_once(FakeService(answer)).must_stop


def test_adapter_of_a_superseded_worker_is_not_reported_again() -> None:
    reporter = Reporter(FakeService(Aborted(Reason.STALE_EPOCH, "stop")), "run_1", 3)
    with pytest.raises(Aborted) as refused:
        reporter.report_trained(models_pb2.AdapterTrained(digest="a1"))
    assert refused.value.retryable is False


def test_unanswered_report_does_not_stop_the_worker_at_once() -> None:
    reporter = report_once(FakeService(Unavailable(Reason("SERVICE_UNAVAILABLE"), "down")))
    assert not reporter.must_stop
    assert not reporter.lost


def test_service_counts_as_lost_after_two_minutes() -> None:
    times = iter([0.0, LOST_SECONDS - 1, LOST_SECONDS + 1])
    reporter = Reporter(FakeService(), "run_1", 1, clock=lambda: next(times))
    assert not reporter.lost
    assert reporter.lost


def test_process_that_only_computes_reports_nothing_and_never_stops() -> None:
    reporter = NullReporter()
    reporter.start()
    reporter.report_progress(models_pb2.RunProgressed(step=1))
    assert reporter.report_trained(models_pb2.AdapterTrained(digest="a1")) is False
    assert (reporter.must_stop, reporter.lost) == (False, False)


def test_log_is_sent_with_the_reports_without_tracebacks() -> None:
    lines = LogLines()
    lines(None, "info", {"event": "training", "rows": 7, "level": "info", "module": "x", "exception": "a secret"})
    service = FakeService()
    reporter = Reporter(service, "run_1", 3, lines)
    reporter.start()
    reporter.report_trained(models_pb2.AdapterTrained(digest="a1"))
    log, last = service.requests
    assert [(line.level, line.message) for line in log.log.lines] == [("info", "training rows=7")]
    assert log.log.lines[0].HasField("create_time")
    assert last.trained.digest == "a1"


def test_log_that_is_not_sent_drops_its_oldest_lines() -> None:
    lines = LogLines()
    for number in range(1200):
        lines(None, "info", {"event": f"{number} " + "x" * 2000})
    taken = lines.take()
    assert (len(taken), taken[0].message[:4], len(taken[0].message)) == (100, "200 ", 1000)
