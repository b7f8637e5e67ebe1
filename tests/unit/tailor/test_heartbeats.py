"""Parts that must show that they go on."""

import json
import threading
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from tailor.heartbeats import Heartbeats
from tailor.runtime import Runtime, open_status_server


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_part_is_silent_once_its_next_beat_is_overdue_and_until_it_beats_again() -> None:
    clock = Clock()
    heartbeats = Heartbeats(clock)
    heartbeats.beat("engine", 300)
    clock.seconds = 300
    assert heartbeats.silent() == []
    clock.seconds = 301
    assert heartbeats.silent() == ["engine"]
    heartbeats.beat("engine", 300)
    assert heartbeats.silent() == []


def test_part_that_ended_is_not_expected_to_beat() -> None:
    clock = Clock()
    heartbeats = Heartbeats(clock)
    heartbeats.beat("consumer", 10)
    heartbeats.end("consumer")
    heartbeats.end("consumer")
    clock.seconds = 11
    assert heartbeats.silent() == []


def test_liveness_fails_while_a_part_is_silent_and_names_it() -> None:
    runtime = Runtime("test")
    server = open_status_server("127.0.0.1", 0, runtime)
    url = f"http://127.0.0.1:{server.server_address[1]}/livez"
    try:
        with urlopen(url, timeout=60) as answer:
            assert json.load(answer) == {"silent": []}
        runtime.heartbeats.beat("engine", -1)
        with pytest.raises(HTTPError) as failed:
            urlopen(url, timeout=60)
        with failed.value:
            assert (failed.value.code, json.load(failed.value)) == (503, {"silent": ["engine"]})
    finally:
        threading.Thread(target=server.shutdown, daemon=True).start()
        server.server_close()
