"""Two replicas, one of which is killed under load. Callers of the documented client do not notice."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tailor.client import AsyncTailorClient, TailorClient
from tailor.errors import Unavailable

pytestmark = pytest.mark.integration

WORDS = 10
WHOLE = "word " * WORDS
Replica = tuple[subprocess.Popen[str], str]


@pytest.fixture
def replicas() -> Iterator[list[Replica]]:
    command = [sys.executable, "-m", "tests.integration.inference_replica"]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    running = []
    for process in started:
        assert process.stdout is not None
        running.append((process, f"127.0.0.1:{process.stdout.readline().strip()}"))
    yield running
    for process in started:
        process.kill()
        process.wait(60)
        assert process.stdout is not None
        process.stdout.close()


class Countdown:
    """Kills a replica after a number of answers, and counts the answers after that."""

    def __init__(self, answers: int, victim: subprocess.Popen[str]) -> None:
        self._left = answers
        self._victim = victim
        self._lock = threading.Lock()
        self.after = 0

    def count(self) -> None:
        with self._lock:
            self._left -= 1
            if self._left == 0:
                self._victim.kill()
            self.after += self._left < 0


def test_a_killed_replica_fails_no_call(replicas: list[Replica]) -> None:
    (victim, first), (_, second) = replicas
    countdown = Countdown(50, victim)
    with TailorClient([first, second], "tlr_test") as client:

        def ask(_: int) -> str:
            answer = client.generate("base", "Write it.", max_tokens=WORDS, timeout_seconds=60)
            countdown.count()
            return answer.text

        with ThreadPoolExecutor(12) as callers:
            texts = list(callers.map(ask, range(160)))
    assert texts == [WHOLE] * 160
    assert countdown.after > 60
    assert victim.wait(60) == -9


def test_with_asyncio_a_killed_replica_fails_only_streams_that_have_begun(replicas: list[Replica]) -> None:
    (victim, first), (_, second) = replicas
    countdown = Countdown(50, victim)
    broken: list[str] = []

    async def stream(client: AsyncTailorClient) -> str:
        text = ""
        try:
            async for piece in client.stream("base", "Write it.", max_tokens=WORDS, timeout_seconds=60):
                text += piece.text
        except Unavailable:
            broken.append(text)
            return await stream(client)
        return text

    async def ask(client: AsyncTailorClient, number: int) -> str:
        if number % 2:
            answer = await client.generate("base", "Write it.", max_tokens=WORDS, timeout_seconds=60)
            text = answer.text
        else:
            text = await stream(client)
        countdown.count()
        return text

    async def load() -> list[str]:
        free = asyncio.Semaphore(12)
        async with AsyncTailorClient(f"{first},{second}", "tlr_test") as client:

            async def ask_in_turn(number: int) -> str:
                async with free:
                    return await ask(client, number)

            return await asyncio.gather(*[ask_in_turn(number) for number in range(160)])

    assert asyncio.run(load()) == [WHOLE] * 160
    assert countdown.after > 60
    assert all(broken) and len(broken) <= 12
