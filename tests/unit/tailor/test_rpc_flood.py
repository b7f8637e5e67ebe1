"""Half-open calls, whose message never comes, and connections without calls: what a stranger, or one key, can hold of a server."""

import gc
import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tailor.api.anonymization.v1 import anonymization_pb2, anonymization_pb2_grpc
from tailor.errors import NotFound, Reason
from tailor.rpc import public_methods
from tailor.rpc.auth import MAX_QUESTIONS, Authenticator, Caller
from tailor.rpc.identity import Trust
from tailor.rpc.server import RpcServer
from tailor.settings import ServiceSettings
from tests.waiting import wait_until

METHOD = "/tailor.api.anonymization.v1.AnonymizationService/Reidentify"
CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
KEYS = {hashlib.sha256(secret.encode()).hexdigest(): secret for secret in ("tlr_one", "tlr_two", "tlr_three")}
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


def _verify(secret_sha256: str) -> Caller:
    if secret_sha256 in KEYS:
        return Caller("key", "test", "ROLE_DATA_PROTECTION", key_id=KEYS[secret_sha256])
    raise NotFound(Reason.UNKNOWN_KEY, "unknown")


class Servicer(anonymization_pb2_grpc.AnonymizationServiceServicer):
    def Reidentify(
        self, request: anonymization_pb2.ReidentifyRequest, context: grpc.ServicerContext
    ) -> anonymization_pb2.ReidentifyResponse:
        return anonymization_pb2.ReidentifyResponse(value="answer")


@contextmanager
def _serving(verify: Callable[[str], Caller] = _verify, **settings: Any) -> Iterator[str]:
    add = anonymization_pb2_grpc.add_AnonymizationServiceServicer_to_server
    server = RpcServer(
        ServiceSettings(rpc_port=0, **settings),
        "anonymization",
        servicers=[(add, Servicer())],  # type: ignore[abstract]  # only what the tests call
        authenticator=Authenticator("anonymization", Trust({}), verify),
    )
    server.start()
    try:
        yield f"127.0.0.1:{server.port}"
    finally:
        server.stop(0)


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server at which half-open calls last longer than any test waits, unless they crowd out others."""
    monkeypatch.setattr(public_methods, "MESSAGE_SECONDS", 600.0)
    with _serving(rpc_message_seconds=600) as served:
        yield served


def _connect(address: str) -> grpc.Channel:
    """A channel that does not share its connection with the other channels of this process."""
    return grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])


def _bearer(key: str) -> tuple[tuple[str, str | bytes], ...]:
    return (("authorization", f"Bearer {key}"),) if key else ()


@contextmanager
def _half_open(address: str, method: str, count: int, key: str = "") -> Iterator[list[Any]]:
    """Begin calls over one connection whose message never comes."""
    end = threading.Event()

    def never() -> Iterator[bytes]:
        end.wait()
        return
        yield

    with _connect(address) as channel:
        grpc.channel_ready_future(channel).result(timeout=60)
        call = channel.stream_unary(method, None, None)
        calls = [call.future(never(), timeout=600, metadata=_bearer(key)) for _ in range(count)]
        try:
            yield calls
        finally:
            for begun in calls:
                begun.cancel()  # type: ignore[no-untyped-call]
            end.set()


def _answers(address: str) -> bool:
    """True if another caller gets an answer on another connection."""
    with _connect(address) as channel:
        grpc.channel_ready_future(channel).result(timeout=60)
        stub = anonymization_pb2_grpc.AnonymizationServiceStub(channel)
        answer = stub.Reidentify(anonymization_pb2.ReidentifyRequest(), timeout=60, metadata=_bearer("tlr_three"))
        return answer.value == "answer"


def _answers_a_health_check(address: str) -> bool:
    with _connect(address) as channel:
        grpc.channel_ready_future(channel).result(timeout=60)
        return bool(health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=60).status)


def _codes(calls: list[Any]) -> list[str]:
    return [call.code().name for call in calls if call.done()]


@pytest.mark.parametrize("method", [METHOD, CHECK, WATCH])
def test_half_open_calls_without_credentials_keep_nobody_waiting(address: str, method: str) -> None:
    with _half_open(address, method, 140) as calls:
        wait_until(lambda: {"UNAUTHENTICATED", "RESOURCE_EXHAUSTED"} & set(_codes(calls)))
        assert _answers(address)
        assert _answers_a_health_check(address)


def test_half_open_calls_without_credentials_end_before_their_message(address: str) -> None:
    with _half_open(address, METHOD, 100) as calls:
        wait_until(lambda: _codes(calls) == ["UNAUTHENTICATED"] * 100)


def test_half_open_calls_over_many_connections_keep_nobody_waiting(address: str) -> None:
    with ExitStack() as held:
        for _ in range(14):
            held.enter_context(_half_open(address, CHECK, 10))
        time.sleep(0.3)
        assert _answers(address)
        assert _answers_a_health_check(address)


def test_half_open_calls_of_one_key_keep_no_other_key_waiting(address: str) -> None:
    with _half_open(address, METHOD, 128, "tlr_one") as calls:
        wait_until(lambda: "RESOURCE_EXHAUSTED" in _codes(calls))
        assert _answers(address)


def test_half_open_calls_of_two_keys_end_early_once_they_crowd_out_others(address: str) -> None:
    with _half_open(address, METHOD, 96, "tlr_one") as first, _half_open(address, METHOD, 90, "tlr_two"):
        wait_until(lambda: "CANCELLED" in _codes(first))
        assert _answers(address)


def test_the_limit_of_one_caller_is_a_setting() -> None:
    with (
        _serving(rpc_max_calls_per_caller=3, rpc_message_seconds=600) as address,
        _half_open(address, METHOD, 10, "tlr_one") as calls,
    ):
        wait_until(lambda: _codes(calls) == ["RESOURCE_EXHAUSTED"] * 7)


def test_a_call_whose_message_does_not_come_is_cancelled() -> None:
    with _serving(rpc_message_seconds=0.5) as address, _half_open(address, METHOD, 2, "tlr_one") as calls:
        wait_until(lambda: _codes(calls) == ["CANCELLED", "CANCELLED"])


@pytest.mark.parametrize("key", ["", "tlr_unknown_{}", "nonsense"])
def test_nothing_of_a_refused_call_waits_for_garbage_collection(address: str, key: str) -> None:
    """gRPC counts a call for its connection until its message is read, or nothing refers to the call."""
    with _connect(address) as channel:
        call = channel.unary_unary(METHOD, None, None)
        gc.collect()
        gc.disable()
        try:
            for number in range(50):
                with pytest.raises(grpc.RpcError):
                    call(b"", timeout=60, metadata=_bearer(key.format(number)))
            wait_until(lambda: sum(type(kept).__name__ == "_RPCState" for kept in gc.get_objects()) < 10)
        finally:
            gc.enable()


def test_a_call_without_a_message_is_the_callers_mistake(address: str) -> None:
    with _connect(address) as channel, pytest.raises(grpc.RpcError) as refused:
        channel.stream_unary(METHOD, None, None)(iter([]), timeout=60, metadata=_bearer("tlr_one"))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_made_up_keys_take_few_threads_while_the_registry_does_not_answer() -> None:
    answers = threading.Event()

    def verify(secret_sha256: str) -> Caller:
        if secret_sha256 not in KEYS:
            answers.wait(120)
        return _verify(secret_sha256)

    with _serving(verify) as address, _connect(address) as channel:
        assert _answers(address)
        call = channel.unary_unary(METHOD, None, None)
        calls = [call.future(b"", timeout=120, metadata=_bearer(f"tlr_made_up_{number}")) for number in range(40)]
        wait_until(lambda: _codes(calls) == ["UNAVAILABLE"] * (40 - MAX_QUESTIONS))
        assert _answers(address)
        answers.set()
        wait_until(lambda: _codes(calls).count("UNAUTHENTICATED") == MAX_QUESTIONS)


def _read_until_closed(connection: socket.socket) -> bytes:
    data = b""
    while piece := connection.recv(4096):
        data += piece
    return data


def test_a_connection_without_calls_is_closed() -> None:
    with (
        _serving(rpc_connection_idle_seconds=1) as address,
        socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), timeout=60) as idle,
    ):
        idle.sendall(PREFACE)
        assert b"connection idle" in _read_until_closed(idle)


def test_more_connections_than_the_limit_are_refused() -> None:
    with _serving(rpc_max_connections=3) as address:
        port = int(address.rpartition(":")[2])
        connections = [socket.create_connection(("127.0.0.1", port), timeout=60) for _ in range(5)]
        answered = []
        for connection in connections:
            try:
                connection.sendall(PREFACE)
                answered.append(bool(connection.recv(100)))
            except ConnectionError:
                answered.append(False)
        for connection in connections:
            connection.close()
        assert sorted(answered) == [False, False, True, True, True]
