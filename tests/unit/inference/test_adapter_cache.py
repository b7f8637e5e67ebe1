"""More adapters than slots: waiting, eviction, and no starvation."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from services.inference.adapter_cache import AdapterCache
from services.inference.domain import AdapterRef
from tailor.errors import Aborted, ResourceExhausted
from tests.unit.inference.fakes import FakeEngine, FakeLibrary, adapter
from tests.waiting import wait_until


class CountingEngine(FakeEngine):
    """Counts users per adapter, to detect an adapter that is unloaded in use."""

    def __init__(self) -> None:
        super().__init__()
        self.users: dict[str, int] = {}
        self.torn = 0
        self.most = 0

    def load(self, digest: str, folder: object) -> None:
        super().load(digest, folder)  # type: ignore[arg-type]
        self.most = max(self.most, len(self.loaded))

    def unload(self, digest: str) -> None:
        self.torn += self.users.get(digest, 0) > 0
        super().unload(digest)


def make_cache(slots: int, wait_seconds: float = 60.0) -> tuple[CountingEngine, AdapterCache]:
    engine = CountingEngine()
    return engine, AdapterCache(engine, FakeLibrary(), slots, wait_seconds)


def test_a_call_waits_until_an_answer_has_ended() -> None:
    engine, cache = make_cache(1)
    waited = threading.Event()

    def second() -> None:
        with cache.using(adapter("b")):
            waited.set()

    with cache.using(adapter("a")):
        thread = threading.Thread(target=second)
        thread.start()
        assert not waited.wait(0.1)
        assert list(engine.loaded) == ["a"]
    thread.join(60)
    assert waited.is_set() and engine.unloaded == ["a"]


def test_a_busy_specialist_lets_another_one_in() -> None:
    engine, cache = make_cache(1)
    stop = threading.Event()

    def busy(hot: AdapterRef) -> None:
        while not stop.is_set():
            with cache.using(hot):
                time.sleep(0.01)

    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(busy, adapter("hot")) for _ in range(3)]
        try:
            wait_until(lambda: "hot" in engine.loaded)
            for _ in range(3):
                with cache.using(adapter("cold")):
                    assert "cold" in engine.loaded
        finally:
            stop.set()
        for future in asked:
            future.result(60)


def test_a_call_gives_up_in_time_and_at_once_if_its_caller_is_gone() -> None:
    _, cache = make_cache(1, wait_seconds=0.05)
    with cache.using(adapter("a")):
        with pytest.raises(ResourceExhausted) as full, cache.using(adapter("b")):
            pass
        assert full.value.reason == "NO_FREE_SLOT" and full.value.retry_after_seconds
        with pytest.raises(Aborted), cache.using(adapter("b"), lambda: True):
            pass
        with cache.using(adapter("a")):
            pass


def test_many_callers_of_many_adapters_never_lose_one_in_use() -> None:
    engine, cache = make_cache(3)
    lock = threading.Lock()

    def call(number: int) -> None:
        with cache.using(adapter(f"a{number * 7 % 8}")) as digest:
            with lock:
                engine.users[digest] = engine.users.get(digest, 0) + 1
            assert digest in engine.loaded
            time.sleep(0.001)
            assert digest in engine.loaded
            with lock:
                engine.users[digest] -= 1

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(call, range(400)))
    assert (engine.torn, engine.most) == (0, 3)
