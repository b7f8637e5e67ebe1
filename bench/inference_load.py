"""Many callers at once: no error and no wrong adapter, also while specialists are promoted and rolled back, and while a replica is killed.

Every adapter of these parts repeats one distinct word (see `inference_adapters.make_speakers`), so the text shows which adapter wrote an answer.
It must be the adapter that the answer's provenance names, and the adapter of the named generation.
"""

import itertools
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from bench.inference_adapters import make_speakers
from bench.inference_house import Adapter, Base, House, ReplicaProcess
from tailor.client import Provenance, TailorClient
from tailor.errors import TailorError

SPECIALISTS = 8
# Slots for the adapters that serve and for half of the others, so that a promotion often has to evict one.
SLOTS = 12
CALLERS = 32
TOKENS = 8
TIMEOUT_SECONDS = 120.0
PROMPTS = [f"What does section {number} of the {name} say?" for number in (1, 4) for name in ("plan", "control ledger")]


@dataclass(frozen=True)
class TimedAnswer:
    """One answer. Seconds count from the start of the call; `tokens` are those after the first one."""

    provenance: Provenance
    text: str
    first_token_seconds: float
    seconds: float
    tokens: int


class ServedSpecialists:
    """Specialists of a base with two adapters each, and their published generations. One per house, because generations only grow."""

    def __init__(self, house: House, base: Base) -> None:
        self.house = house
        self.base = base
        speakers = make_speakers(base.folder, house.root / f"{base.name}-speakers", PROMPTS, 2 * SPECIALISTS)
        self.words = {house.publish_adapter(folder, base): word for folder, word in speakers.items()}
        self._adapters = list(self.words)
        self._words_by_digest = {adapter.digest: word for adapter, word in self.words.items()}
        self._generations = dict.fromkeys(self.names, 0)
        self._published: dict[tuple[str, int], str] = {}
        for name in self.names:
            self.change(name)

    @property
    def names(self) -> list[str]:
        return [f"{self.base.name.split('-')[0]}-speaker-{number}" for number in range(SPECIALISTS)]

    def client(self, *replicas: ReplicaProcess) -> TailorClient:
        """The documented client, with a caller's key."""
        return self.house.client(*replicas)

    def change(self, name: str) -> int:
        """Promote a specialist's second adapter, or roll back to the first. Returns the new generation."""
        generation = self._generations[name] + 1
        adapter = self._adapter(name, generation)
        self._published[name, generation] = adapter.digest
        self._generations[name] = generation
        self.house.serve(name, generation, adapter, self.base)
        return generation

    def _adapter(self, name: str, generation: int) -> Adapter:
        return self._adapters[2 * self.names.index(name) + (generation - 1) % 2]

    def is_right(self, name: str, answer: TimedAnswer) -> bool:
        """True if the answer comes from the adapter of the generation that it names."""
        provenance = answer.provenance
        digest = self._published.get((provenance.specialist, provenance.generation), "")
        return is_right(name, provenance, digest, self._words_by_digest.get(digest, ""), answer.text)


def is_right(name: str, provenance: Provenance, digest: str, word: str, text: str) -> bool:
    """True if the provenance names the specialist and the published digest, and the text repeats this adapter's word."""
    return provenance.specialist == name and provenance.adapter_digest == digest != "" and text == word * TOKENS


@dataclass
class LoadOutcome:
    """Results of all callers. Thread-safe by the lock of `load`."""

    answers: list[TimedAnswer] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    wrong: int = 0

    def figures(self) -> dict[str, Any]:
        """Counts; `generations` are those that answered."""
        return {
            "requests": len(self.answers) + len(self.errors),
            "errors": len(self.errors),
            "reasons": sorted(set(self.errors)),
            "wrong_adapter": self.wrong,
            "generations": len(
                {(answer.provenance.specialist, answer.provenance.generation) for answer in self.answers}
            ),
        }

    def times(self) -> dict[str, Any]:
        """Milliseconds to the first token and per further token of streamed answers, as the percentiles 50, 95 and 99."""
        first = [answer.first_token_seconds for answer in self.answers]
        further = [
            (answer.seconds - answer.first_token_seconds) / answer.tokens for answer in self.answers if answer.tokens
        ]
        return {
            f"p{share}": {
                "first_token_ms": round(1000 * percentile(first, share / 100), 1),
                "per_token_ms": round(1000 * percentile(further, share / 100), 1),
            }
            for share in (50, 95, 99)
        }


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share (above 0, up to 1) of them does not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


Ask = Callable[[TailorClient, str, str], TimedAnswer]


def stream(client: TailorClient, name: str, prompt: str) -> TimedAnswer:
    """One streamed answer."""
    started = time.perf_counter()
    text, first, pieces = "", 0.0, client.stream(name, prompt, max_tokens=TOKENS, timeout_seconds=TIMEOUT_SECONDS)
    for piece in pieces:
        if piece.text and not text:
            first = time.perf_counter() - started
        text += piece.text
    assert piece.provenance is not None and piece.usage is not None
    return TimedAnswer(piece.provenance, text, first, time.perf_counter() - started, piece.usage.completion_tokens - 1)


def whole(client: TailorClient, name: str, prompt: str) -> TimedAnswer:
    """One answer that is not streamed, so that its first token arrives with its last."""
    started = time.perf_counter()
    answer = client.generate(name, prompt, max_tokens=TOKENS, timeout_seconds=TIMEOUT_SECONDS)
    seconds = time.perf_counter() - started
    return TimedAnswer(answer.provenance, answer.text, seconds, seconds, 0)


def load(
    client: TailorClient,
    stage: ServedSpecialists,
    ask: Ask,
    more: Callable[[int], bool],
    answered: Callable[[int], None],
) -> LoadOutcome:
    """Let CALLERS callers ask one specialist after the other while `more(number of calls)` is true; `answered` gets the number of answers."""
    outcome = LoadOutcome()
    lock = threading.Lock()
    numbers = itertools.count()

    def caller(_: int) -> None:
        while True:
            with lock:
                number = next(numbers)
                if not more(number):
                    return
            name = stage.names[number * 5 % SPECIALISTS]
            try:
                answer = ask(client, name, PROMPTS[number % len(PROMPTS)])
            except TailorError as error:
                with lock:
                    outcome.errors.append(error.reason)
                continue
            with lock:
                outcome.answers.append(answer)
                outcome.wrong += not stage.is_right(name, answer)
                answered(len(outcome.answers))

    with ThreadPoolExecutor(CALLERS) as callers:
        list(callers.map(caller, range(CALLERS)))
    return outcome


@contextmanager
def serving(stage: ServedSpecialists, threads: int, replicas: int = 1) -> Iterator[list[ReplicaProcess]]:
    """Replicas that are ready."""
    started = [
        stage.house.replica(stage.base, slots=SLOTS, threads=threads, number=number) for number in range(replicas)
    ]
    try:
        for replica in started:
            replica.child.begin()
        for replica in started:
            replica.child.wait_ready()
        yield started
    finally:
        for replica in started:
            replica.child.end()
