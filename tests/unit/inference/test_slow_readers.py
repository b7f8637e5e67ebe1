"""A stream that nobody reads ends, at both doors, and its place is free for others."""

import json
import socket
import threading
from collections.abc import Iterator

import pytest

from services.inference import slow_readers
from services.inference.generation import ReadinessGate
from services.inference.slow_readers import SlowReaders
from tailor.api.inference.v1 import inference_pb2
from tests.unit.inference.echo import EchoEngine
from tests.unit.inference.fakes import make_world
from tests.unit.inference.test_http import serving
from tests.unit.inference.test_rpc import REQUEST, RunningServer
from tests.waiting import wait_until

# More than all buffers between the engine and a reader hold.
LONG = "x" * 32_000_000


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slow_readers, "UNREAD_SECONDS", 0.5)


@pytest.fixture
def engine() -> EchoEngine:
    engine = EchoEngine(size=65_536)
    engine.prefix = LONG
    return engine


def test_a_grpc_stream_that_nobody_reads_is_cancelled(engine: EchoEngine) -> None:
    running = RunningServer(engine)
    running.gate.open(running.world.inference)
    try:
        stream = running.stub().StreamGenerate(inference_pb2.StreamGenerateRequest(request=REQUEST), timeout=600)
        next(iter(stream))
        wait_until(lambda: engine.echoes[0].is_cancelled)
        wait_until(lambda: [draft.finish_reason for draft in running.world.published.drafts] == ["cancelled"])
        engine.prefix = ""
        # Its key may have one place, which is free again.
        assert running.stub().Generate(REQUEST, timeout=60).finish_reason == "stop"
    finally:
        running.server.stop(0)


def test_an_http_stream_that_nobody_reads_is_cancelled(engine: EchoEngine) -> None:
    world, gate = make_world(engine=engine), ReadinessGate()
    gate.open(world.inference)
    body = json.dumps({"model": "base", "messages": [{"role": "user", "content": "Write."}], "stream": True}).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer tlr_caller\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with serving(gate) as port, socket.create_connection(("127.0.0.1", port)) as reader:
        reader.sendall(head.encode() + body)
        assert reader.recv(100).startswith(b"HTTP/1.1 200")
        wait_until(lambda: engine.echoes[0].is_cancelled)
        wait_until(lambda: [draft.finish_reason for draft in world.published.drafts] == ["cancelled"])


def read(readers: SlowReaders, cancelled: threading.Event) -> Iterator[int]:
    with readers.reading(cancelled.set):
        yield 1


def test_a_reader_in_time_is_left_alone_and_a_later_one_is_watched_again() -> None:
    readers, late, early = SlowReaders(0.2), threading.Event(), threading.Event()
    assert list(read(readers, early)) == [1]
    pieces = read(readers, late)
    next(pieces)
    wait_until(late.is_set)
    assert list(pieces) == []
    # The watching thread has ended meanwhile, or ends now.
    again = threading.Event()
    waiting = read(readers, again)
    next(waiting)
    wait_until(again.is_set)
    assert not early.is_set()
