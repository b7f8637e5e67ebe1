"""The overhead of our layer: the same engine in the same process, asked through gRPC with an API key and directly, interleaved."""

import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.inference_house import Base, House, ReplicaProcess
from bench.inference_speed import PROMPTS, ask
from services.inference.domain import BASE
from tailor.client import TailorClient

MODULE = "bench.inference_engine"
PROMPT = PROMPTS[0]


@dataclass(frozen=True)
class OverheadSize:
    """Calls of one caller for each length of answer, interleaved in batches; then rounds of many callers."""

    lengths: Sequence[int] = tuple(range(1, 9))
    turns: int = 8
    calls: int = 5
    rounds: int = 5
    tokens: int = 64


def measure(house: House, base: Base, size: OverheadSize, threads: int) -> dict[str, Any]:
    """The median overhead of a call in milliseconds, and throughput with the layer divided by throughput without."""
    replica = house.replica(base, slots=1, threads=threads, module=MODULE)
    replica.child.begin()
    try:
        replica.child.wait_ready()
        with house.client(replica) as client:
            return _latency(replica, client, size) | _throughput(replica, client, size)
    finally:
        replica.child.end()


def added(direct: Mapping[int, Sequence[float]], through: Mapping[int, Sequence[float]]) -> dict[int, float]:
    """The difference of the medians in milliseconds, by length of the answer."""
    return {
        length: round(1000 * (statistics.median(through[length]) - statistics.median(direct[length])), 2)
        for length in direct
    }


def _latency(replica: ReplicaProcess, client: TailorClient, size: OverheadSize) -> dict[str, Any]:
    direct: dict[int, list[float]] = {length: [] for length in size.lengths}
    through: dict[int, list[float]] = {length: [] for length in size.lengths}
    for _ in range(size.turns):
        for length in size.lengths:
            direct[length] += _directly(replica, 1, size.calls, length)["seconds"]
            through[length] += [_call(client, length) for _ in range(size.calls)]
    by_length = added(direct, through)
    return {
        "added_p50_ms": round(statistics.median(by_length.values()), 2),
        "added_p50_ms_by_tokens": by_length,
        "direct_p50_ms": {length: round(1000 * statistics.median(direct[length]), 1) for length in direct},
        "calls": size.turns * size.calls * len(size.lengths),
    }


def _throughput(replica: ReplicaProcess, client: TailorClient, size: OverheadSize) -> dict[str, Any]:
    callers = len(PROMPTS)
    without, within = [], []
    for _ in range(size.rounds):
        answers = _directly(replica, callers, 1, size.tokens)
        without.append(answers["tokens"] / answers["wall_seconds"])
        began = time.perf_counter()
        written = ask(client, [BASE] * callers, [PROMPT] * callers, size.tokens)
        within.append(written / (time.perf_counter() - began))
    return {
        "throughput_ratio": round(max(within) / max(without), 3),
        "layer_tokens_per_second": {"with": round(max(within), 1), "without": round(max(without), 1)},
    }


def _directly(replica: ReplicaProcess, callers: int, calls: int, tokens: int) -> dict[str, Any]:
    asked = {"callers": callers, "calls": calls, "tokens": tokens, "prompt": PROMPT}
    answers: dict[str, Any] = json.loads(replica.child.ask(json.dumps(asked)))
    return answers


def _call(client: TailorClient, tokens: int) -> float:
    began = time.perf_counter()
    client.generate(BASE, PROMPT, max_tokens=tokens)
    return time.perf_counter() - began
