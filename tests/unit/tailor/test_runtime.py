"""The life of a service process."""

import http.client
import threading
from collections.abc import Callable

import pytest

from tailor.errors import Reason, Unavailable
from tailor.retry import Stopped
from tailor.runtime import Runtime, open_status_server


class FakeServer:
    """Records what the runtime does with it."""

    def __init__(self) -> None:
        self.history: list[str] = []

    def start(self) -> None:
        self.history.append("start")

    def stop(self, grace: float) -> None:
        self.history.append("stop")

    def set_serving(self, serving: bool) -> None:
        self.history.append(f"serving={serving}")


def test_serves_from_ready_until_stopped_and_closes_in_reverse_order() -> None:
    runtime, server, closed = Runtime("test"), FakeServer(), list[str]()
    runtime.serve(server)
    assert not runtime.status()["ready"]
    runtime.ready()
    assert runtime.status()["ready"]
    for name in ("database", "producer"):
        runtime.on_stop(lambda name=name: closed.append(name))  # type: ignore[misc]
    runtime.stop.set()
    assert runtime.run_until_stopped() == 0
    assert server.history == ["start", "serving=True", "serving=False", "stop"]
    assert closed == ["producer", "database"]


def test_running_calls_have_the_grace_to_end_while_threads_go_on() -> None:
    runtime = Runtime("test", grace_seconds=60.0)
    call_ended, seen = threading.Event(), list[tuple[float, bool]]()

    class BusyServer(FakeServer):
        """One call is running; it ends when the test says so."""

        def stop(self, grace: float) -> None:
            if not call_ended.is_set():
                call_ended.wait(60)
            seen.append((grace, runtime.stop.is_set()))

    runtime.serve(BusyServer())
    runtime.ready()
    runtime.end()
    runtime.end()
    assert not runtime.status()["serving"]
    assert not runtime.stop.wait(0.05)
    call_ended.set()
    assert runtime.stop.wait(60)
    assert runtime.run_until_stopped() == 0
    assert seen[0] == (60.0, False)


def test_servers_share_one_grace() -> None:
    runtime = Runtime("test", grace_seconds=60.0)
    both = threading.Barrier(2)

    class PatientServer(FakeServer):
        """Ends only together with the other one."""

        def stop(self, grace: float) -> None:
            if not runtime.stop.is_set():
                both.wait(60)

    for _ in range(2):
        runtime.serve(PatientServer())
    runtime.end()
    assert runtime.stop.wait(60)
    assert not both.broken


def test_status_names_what_the_service_waits_for() -> None:
    runtime = Runtime("test")
    seen: list[object] = []

    def check() -> int:
        seen.append(runtime.status()["waiting_for"])
        if len(seen) == 1:
            raise Unavailable(Reason.DATABASE_UNAVAILABLE, "down")
        return 7

    assert runtime.wait_for("database", check) == 7
    assert seen == ["database", "database"]
    assert runtime.status()["waiting_for"] is None


def test_a_stop_ends_waiting() -> None:
    runtime = Runtime("test")

    def check() -> None:
        runtime.stop.set()
        raise Unavailable(Reason.DATABASE_UNAVAILABLE, "down")

    with pytest.raises(Stopped):
        runtime.wait_for("database", check)


def raise_(error: BaseException) -> Callable[[threading.Event], None]:
    def work(stop: threading.Event) -> None:
        if isinstance(error, Stopped):
            stop.set()
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "status"),
    [(ZeroDivisionError(), 1), (Unavailable(Reason.KAFKA_UNAVAILABLE, "down"), 1), (Stopped(), 0)],
)
def test_a_failing_thread_ends_the_process_with_an_error_but_a_stopped_one_does_not(
    error: BaseException, status: int
) -> None:
    runtime = Runtime("test")
    runtime.spawn("work", raise_(error))
    assert runtime.stop.wait(60)
    assert runtime.run_until_stopped() == status


def test_a_part_that_waits_makes_the_process_not_ready_but_keeps_it_serving() -> None:
    runtime = Runtime("test")
    runtime.ready()
    runtime.faults.notice("topic x", Unavailable(Reason.MISSPELT_TOPIC, "Nobody reads it."))
    assert runtime.status()["ready"]
    runtime.faults.report("kafka", Unavailable(Reason.KAFKA_LOGIN_REFUSED, "The broker refuses the login."))
    status = runtime.status()
    assert status["serving"] and not status["ready"]
    assert status["waiting_for"] == "kafka: KAFKA_LOGIN_REFUSED. The broker refuses the login."
    runtime.faults.clear("kafka")
    assert runtime.status()["ready"]


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE"])
def test_the_status_port_serves_health_and_metrics_and_nothing_else(method: str) -> None:
    server = open_status_server("127.0.0.1", 0, Runtime("test"))
    statuses = {}
    for path in ("/livez", "/readyz", "/metrics", "/", "/debug/pprof/", "/readyz/..", "/metrics?x"):
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
        connection.request(method, path, headers={"Origin": "https://evil.example"})
        statuses[path] = connection.getresponse().status
        connection.close()
    server.shutdown()
    health = {"/livez": 200, "/readyz": 503, "/metrics": 200} if method == "GET" else {}
    assert statuses == {path: health.get(path, 404 if method == "GET" else 501) for path in statuses}
