"""Tokens per second of sixteen callers, all sides interleaved on one machine.

Ours is the service as a process, asked through gRPC by the documented client with an API key. Every side writes greedily and in one precision, transformers and
PEFT on one thread or on all, whichever is quicker. A side that waits for its turn computes nothing.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from bench.inference_adapters import make_adapters
from bench.inference_house import Base, House
from bench.inference_rivals import Plain, VllmServer, quickest
from services.inference.domain import BASE
from tailor.client import TailorClient

SUBJECTS = (
    "rivers glaciers bridges lighthouses railways harbours libraries markets orchards mountains deserts islands canals theatres gardens observatories"
).split()
PROMPTS = [f"Write a long and detailed essay about {subject}, with many paragraphs." for subject in SUBJECTS]

WARM_TOKENS = 8


@dataclass(frozen=True)
class SpeedSize:
    """Tokens per answer, rounds, and the number of answers that `generate` writes one by one, which does not change its rate."""

    tokens: int = 64
    rounds: int = 5
    one_by_one: int = 3


@dataclass
class GenerationPath:
    """One way to generate answers; returns the number of tokens. `cpu` counts the CPU seconds of the process that computes."""

    answer: Callable[[int], int]
    cpu: Callable[[], float]
    threads: int
    rates: list[float] = field(default_factory=list)
    cpu_rates: list[float] = field(default_factory=list)
    tokens: int = 0

    def run(self, tokens: int) -> None:
        began, spent = time.perf_counter(), self.cpu()
        self.tokens = self.answer(tokens)
        self.rates.append(self.tokens / (time.perf_counter() - began))
        self.cpu_rates.append(self.tokens / max(1e-9, self.cpu() - spent))


def measure(house: House, base: Base, size: SpeedSize, threads: int) -> dict[str, Any]:
    """The best round of each side, and our rate divided by theirs."""
    with _sides(house, base, size, threads) as sides:
        for side in sides.values():
            side.answer(WARM_TOKENS)
        for _ in range(size.rounds):
            for side in sides.values():
                side.run(size.tokens)
    best = {name: max(side.rates) for name, side in sides.items()}
    return {
        "threads": {name: side.threads for name, side in sides.items()},
        "rounds": size.rounds,
        "tokens_per_second": {name: round(rate, 1) for name, rate in best.items()},
        "median_tokens_per_second": {name: round(statistics.median(side.rates), 1) for name, side in sides.items()},
        "tokens_per_cpu_second": {name: round(max(side.cpu_rates), 1) for name, side in sides.items()},
        "tokens": {name: side.tokens for name, side in sides.items()},
        **ratios(best),
    }


def ratios(best: dict[str, float]) -> dict[str, float]:
    """Our rate divided by theirs."""
    return {
        "ratio_to_generate": round(best["ours"] / best["generate"], 3),
        "ratio_to_peft": round(best["ours, mixed"] / best["PEFT, mixed"], 3),
        "ratio_to_vllm_server": round(best["ours"] / best["vLLM's server"], 3),
        "mixed_ratio_to_vllm_server": round(best["ours, mixed"] / best["vLLM's server, mixed"], 3),
    }


@contextmanager
def _sides(house: House, base: Base, size: SpeedSize, threads: int) -> Iterator[dict[str, GenerationPath]]:
    adapters = [
        house.publish_adapter(folder, base)
        for folder in make_adapters(base.folder, house.root / f"{base.name}-adapters", len(PROMPTS))
    ]
    names = [f"speed-{number}" for number in range(len(adapters))]
    for name, adapter in zip(names, adapters, strict=True):
        house.serve(name, 1, adapter, base)
    replica = house.replica(base, slots=len(adapters), threads=threads)
    server = VllmServer(house, base, adapters, threads)
    replica.child.begin()
    try:
        # One after the other, because both try a full step before they are ready.
        replica.child.wait_ready()
        server.child.begin().wait_ready()
        plain = Plain(base, adapters)
        few = PROMPTS[: size.one_by_one]
        alone = quickest(threads, lambda number: plain.one_by_one(few[:1], size.tokens, number))
        batch = quickest(threads, lambda number: plain.mixed(PROMPTS, WARM_TOKENS, number))
        with house.client(replica) as client:
            ours, theirs, here = replica.child.cpu_seconds, server.child.cpu_seconds, time.process_time
            base_models = [BASE] * len(PROMPTS)
            yield {
                "generate": GenerationPath(lambda tokens: plain.one_by_one(few, tokens, alone), here, threads=alone),
                "PEFT, mixed": GenerationPath(lambda tokens: plain.mixed(PROMPTS, tokens, batch), here, threads=batch),
                "ours": GenerationPath(lambda tokens: ask(client, base_models, PROMPTS, tokens), ours, threads=threads),
                "vLLM's server": GenerationPath(
                    lambda tokens: server.ask(base_models, PROMPTS, tokens), theirs, threads=threads
                ),
                "ours, mixed": GenerationPath(
                    lambda tokens: ask(client, names, PROMPTS, tokens), ours, threads=threads
                ),
                "vLLM's server, mixed": GenerationPath(
                    lambda tokens: server.ask(server.models, PROMPTS, tokens), theirs, threads=threads
                ),
            }
    finally:
        replica.child.end()
        server.close()


def ask(client: TailorClient, models: Sequence[str], prompts: Sequence[str], tokens: int) -> int:
    """Ask all prompts concurrently. Returns the number of tokens."""

    def one(model: str, prompt: str) -> int:
        return client.generate(model, prompt, max_tokens=tokens, timeout_seconds=600).usage.completion_tokens

    with ThreadPoolExecutor(len(prompts)) as callers:
        return sum(callers.map(one, models, prompts))
