"""What runs next to training in `bench.callers_wait`: callers, an endless stream, and other programs."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random

from bench.children import cpu_seconds
from tailor.api.inference.v1 import inference_pb2, inference_pb2_grpc
from tailor.local import processes

CALLS_PER_SECOND = 0.5
ANSWER_TOKENS, STREAM_TOKENS = 16, 1500
PLACES = 64
CALL_SECONDS = 300.0
# A program with a number of busy processes, itself included.
BUSY = "import os, sys\nfor _ in range(int(sys.argv[1]) - 1):\n    if not os.fork():\n        break\nwhile True: pass"


@dataclass(frozen=True)
class TimedCall:
    """When a call was due, in seconds since 1970, and how long its caller waited for the first token and for the whole answer."""

    due: float
    first_token: float
    whole: float


class Callers:
    """Ask for short answers at random times (Poisson), whether earlier ones are answered or not. Use it in a `with` block."""

    def __init__(self, stub: inference_pb2_grpc.InferenceServiceStub, prompts: Sequence[str], seed: str) -> None:
        self._answers: list[Future[TimedCall]] = []
        self._stub, self._prompts, self._random = stub, prompts, Random(seed)
        self._ended = threading.Event()
        self._pool = ThreadPoolExecutor(PLACES)
        self._thread = threading.Thread(target=self._arrive, daemon=True)

    def __enter__(self) -> "Callers":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for the calls that have begun: they count."""
        self._ended.set()
        self._thread.join()
        self._pool.shutdown()

    @property
    def calls(self) -> list[TimedCall]:
        """The calls, in the order in which they were due. Raises RpcError if one failed. Blocks until they have ended."""
        return [answer.result() for answer in self._answers]

    def _arrive(self) -> None:
        due = time.time()
        while True:
            due += self._random.expovariate(CALLS_PER_SECOND)
            if self._ended.wait(max(0.0, due - time.time())):
                return
            self._answers.append(self._pool.submit(self._ask, due, self._random.choice(self._prompts)))

    def _ask(self, due: float, prompt: str) -> TimedCall:
        first = 0.0
        for response in self._stub.StreamGenerate(to_request(prompt, ANSWER_TOKENS), timeout=CALL_SECONDS):
            first = first or (time.time() if response.text or response.finish_reason else 0.0)
        return TimedCall(due, first - due, time.time() - due)


def to_request(prompt: str, tokens: int) -> inference_pb2.StreamGenerateRequest:
    """A request to the base."""
    sampling = inference_pb2.Sampling(max_tokens=tokens, temperature=0.7)
    return inference_pb2.StreamGenerateRequest(
        request=inference_pb2.GenerateRequest(model="base", prompt=prompt, sampling=sampling)
    )


@contextmanager
def endless_stream(stub: inference_pb2_grpc.InferenceServiceStub, prompt: str) -> Iterator[None]:
    """One caller who has one long answer after another written, and reads them."""
    ended = threading.Event()

    def read() -> None:
        while not ended.is_set():
            call = stub.StreamGenerate(to_request(prompt, STREAM_TOKENS), timeout=CALL_SECONDS)
            for _ in call:
                if ended.is_set():
                    call.cancel()  # type: ignore[no-untyped-call]
                    return

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def busy_programs(*sizes: int) -> Iterator[Callable[[], list[float]]]:
    """Other programs, each in its own session and with a number of busy processes. Yields a function that returns the CPU seconds of each."""
    children = [subprocess.Popen([sys.executable, "-c", BUSY, str(size)], start_new_session=True) for size in sizes]
    try:
        # Until all have begun.
        time.sleep(1)
        yield lambda: [sum(map(cpu_seconds, processes.group_members(child.pid))) for child in children]
    finally:
        for child in children:
            processes.kill(processes.group_members(child.pid))
            child.wait()


def measure_share(size: int, *others: int, seconds: float) -> float:
    """The CPU seconds per second that the scheduler gives to a program of `size` busy processes next to others."""
    with busy_programs(size, *others) as read:
        (before, *_), begun = read(), time.monotonic()
        time.sleep(seconds)
        return (read()[0] - before) / (time.monotonic() - begun)
