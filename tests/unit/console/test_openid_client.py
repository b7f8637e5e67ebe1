"""The client of an OpenID provider that does not answer."""

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from services.console.adapters.openid import MAX_QUESTIONS, OpenIdClient
from services.console.domain import SignInAttempt
from tailor.errors import Unavailable
from tests.waiting import wait_until

ATTEMPT = SignInAttempt("state", "nonce", "v" * 48, "/")


@contextmanager
def silent_provider() -> Iterator[tuple[str, list[socket.socket]]]:
    """An address that takes connections and says nothing, and the connections."""
    connections: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            while True:
                try:
                    connections.append(server.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", connections
        server.shutdown(socket.SHUT_RDWR)
        thread.join(60)
    for connection in connections:
        connection.close()


def test_a_silent_provider_takes_few_threads_and_the_others_are_answered_at_once() -> None:
    with silent_provider() as (issuer, connections), ThreadPoolExecutor(MAX_QUESTIONS) as threads:
        client = OpenIdClient(issuer, "tailor-console", "", "http://127.0.0.1:9999")
        waiting = [threads.submit(client.authorize, ATTEMPT) for _ in range(MAX_QUESTIONS)]
        wait_until(lambda: len(connections) == MAX_QUESTIONS)
        with pytest.raises(Unavailable):
            client.authorize(ATTEMPT)
        assert not any(question.done() for question in waiting)
        for connection in connections:
            connection.close()
        for question in waiting:
            with pytest.raises(Unavailable):
                question.result(60)
        # The places are free again.
        again = threads.submit(client.authorize, ATTEMPT)
        wait_until(lambda: len(connections) == MAX_QUESTIONS + 1)
        connections[-1].close()
        with pytest.raises(Unavailable):
            again.result(60)
