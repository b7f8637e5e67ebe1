"""Requests that never arrive completely, at a real server."""

import asyncio
import http.client
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import uvicorn

from tailor.slow_requests import TimedProtocol
from tests.waiting import wait_until

SECONDS = 0.6


class Hurried(TimedProtocol):
    receive_seconds = SECONDS


async def _app(scope: Any, receive: Any, send: Any) -> None:
    """Read the body, wait for longer than a request may take, and answer."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        if not message.get("more_body"):
            break
    if scope["path"] == "/slow":
        await asyncio.sleep(2 * SECONDS)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    server = uvicorn.Server(
        uvicorn.Config(_app, host="127.0.0.1", port=0, http=Hurried, log_config=None, lifespan="off")
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join(60)


def _closed_after(port: int, *parts: bytes, pause: float = 0.0) -> float:
    """The seconds until the server closes a connection on which it gets these parts, without an answer."""
    started = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        for part in parts:
            client.sendall(part)
            time.sleep(pause)
        with suppress(ConnectionResetError):
            assert client.recv(100) == b""
        return time.monotonic() - started


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HT",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Half: ",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhal",
    ],
)
def test_a_request_that_does_not_arrive_is_closed(port: int, sent: bytes) -> None:
    assert _closed_after(port, sent) > SECONDS - 0.1


def test_a_request_that_trickles_gains_no_time(port: int) -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"
    with pytest.raises(OSError):
        _closed_after(port, head, *[b"x"] * 60, pause=0.05)


def test_many_half_sent_requests_keep_nobody_out(port: int) -> None:
    clients = [socket.create_connection(("127.0.0.1", port), timeout=60) for _ in range(300)]
    for client in clients:
        # On a slow machine, the time of the first ones is over already.
        with suppress(ConnectionError):
            client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf")
    assert _get(port, "/") == b"ok"
    for client in clients:
        with suppress(ConnectionError):
            assert client.recv(10) == b""
        client.close()


def test_a_slow_answer_and_a_second_request_are_not_cut(port: int) -> None:
    assert _get(port, "/slow") == b"ok"
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        for path in (b"/slow", b"/", b"/slow"):
            client.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"200 OK" in client.recv(1000)
            time.sleep(SECONDS / 2)


def _get(port: int, path: str) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path)
    return connection.getresponse().read()
