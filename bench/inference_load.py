"""Many callers at once: no error and no wrong adapter, also while specialists are promoted and rolled back, and while a replica is killed.

Every adapter of these parts says one word of its own again and again (see `inference_adapters.make_speakers`), so the text alone tells which adapter
wrote an answer. It must be the adapter that the answer's provenance names, and the one that the named generation was given.
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
from bench.inference_house import Adapter, Base, House, Replica
from tailor.client import Provenance, TailorClient
from tailor.errors import TailorError

SPECIALISTS = 8
# Room for those that serve and for half of those that do not: a promotion often has to make room.
SLOTS = 12
CALLERS = 32
TOKENS = 8
TIMEOUT_SECONDS = 120.0
PROMPTS = [f"What does section {number} of the {name} say?" for number in (1, 4) for name in ("plan", "control ledger")]


@dataclass(frozen=True)
class Spoken:
    """One answer. Seconds count from the call's beginning; `tokens` came after the first one."""

    provenance: Provenance
    text: str
    first_token_seconds: float
    seconds: float
    tokens: int


class Stage:
    """Specialists of a base with two adapters each, and what has been stated of them; one a house, for generations only grow."""

    def __init__(self, house: House, base: Base) -> None:
        self.house = house
        self.base = base
        speakers = make_speakers(base.folder, house.root / f"{base.name}-speakers", PROMPTS, 2 * SPECIALISTS)
        self.words = {house.publish_adapter(folder, base): word for folder, word in speakers.items()}
        self._adapters = list(self.words)
        self._said = {adapter.digest: word for adapter, word in self.words.items()}
        self._generations = dict.fromkeys(self.names, 0)
        self._stated: dict[tuple[str, int], str] = {}
        for name in self.names:
            self.change(name)

    @property
    def names(self) -> list[str]:
        """The specialists."""
        return [f"{self.base.name.split('-')[0]}-speaker-{number}" for number in range(SPECIALISTS)]

    def client(self, *replicas: Replica) -> TailorClient:
        """The documented client, with a caller's key."""
        return self.house.client(*replicas)

    def change(self, name: str) -> int:
        """Promote a specialist's second adapter, or roll back to the first; the new generation."""
        generation = self._generations[name] + 1
        adapter = self._adapter(name, generation)
        self._stated[name, generation] = adapter.digest
        self._generations[name] = generation
        self.house.serve(name, generation, adapter, self.base)
        return generation

    def _adapter(self, name: str, generation: int) -> Adapter:
        return self._adapters[2 * self.names.index(name) + (generation - 1) % 2]

    def is_right(self, name: str, spoken: Spoken) -> bool:
        """True where the answer is that of the adapter that the generation it names was given."""
        given = spoken.provenance
        digest = self._stated.get((given.specialist, given.generation), "")
        return is_right(name, given, digest, self._said.get(digest, ""), spoken.text)


def is_right(name: str, given: Provenance, digest: str, word: str, text: str) -> bool:
    """True where the provenance names who was asked and the stated digest, and the text is this adapter's word, again and again."""
    return given.specialist == name and given.adapter_digest == digest != "" and text == word * TOKENS


@dataclass
class Outcome:
    """What callers saw. Thread-safe by the lock of `load`."""

    spoken: list[Spoken] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    wrong: int = 0

    def figures(self) -> dict[str, Any]:
        """Counts; `generations` are those that answered."""
        return {
            "requests": len(self.spoken) + len(self.errors),
            "errors": len(self.errors),
            "reasons": sorted(set(self.errors)),
            "wrong_adapter": self.wrong,
            "generations": len({(one.provenance.specialist, one.provenance.generation) for one in self.spoken}),
        }

    def times(self) -> dict[str, Any]:
        """Milliseconds to the first token and from token to token, of streamed answers: what half, 95 and 99 of a hundred took at most."""
        first = [one.first_token_seconds for one in self.spoken]
        each = [(one.seconds - one.first_token_seconds) / one.tokens for one in self.spoken if one.tokens]
        return {
            f"p{share}": {
                "first_token_ms": round(1000 * percentile(first, share / 100), 1),
                "per_token_ms": round(1000 * percentile(each, share / 100), 1),
            }
            for share in (50, 95, 99)
        }


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share (above 0, up to 1) of them does not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


Ask = Callable[[TailorClient, str, str], Spoken]


def stream(client: TailorClient, name: str, prompt: str) -> Spoken:
    """One streamed answer."""
    began = time.perf_counter()
    text, first, pieces = "", 0.0, client.stream(name, prompt, max_tokens=TOKENS, timeout_seconds=TIMEOUT_SECONDS)
    for piece in pieces:
        if piece.text and not text:
            first = time.perf_counter() - began
        text += piece.text
    assert piece.provenance is not None and piece.usage is not None
    return Spoken(piece.provenance, text, first, time.perf_counter() - began, piece.usage.completion_tokens - 1)


def whole(client: TailorClient, name: str, prompt: str) -> Spoken:
    """One answer that is not streamed: its first token comes with its last."""
    began = time.perf_counter()
    answer = client.generate(name, prompt, max_tokens=TOKENS, timeout_seconds=TIMEOUT_SECONDS)
    seconds = time.perf_counter() - began
    return Spoken(answer.provenance, answer.text, seconds, seconds, 0)


def load(
    client: TailorClient, stage: Stage, ask: Ask, more: Callable[[int], bool], answered: Callable[[int], None]
) -> Outcome:
    """CALLERS callers ask specialist after specialist as long as `more` says so of the calls begun; `answered` hears how many answers came."""
    outcome = Outcome()
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
                spoken = ask(client, name, PROMPTS[number % len(PROMPTS)])
            except TailorError as error:
                with lock:
                    outcome.errors.append(error.reason)
                continue
            with lock:
                outcome.spoken.append(spoken)
                outcome.wrong += not stage.is_right(name, spoken)
                answered(len(outcome.spoken))

    with ThreadPoolExecutor(CALLERS) as callers:
        list(callers.map(caller, range(CALLERS)))
    return outcome


@contextmanager
def serving(stage: Stage, threads: int, replicas: int = 1) -> Iterator[list[Replica]]:
    """Replicas that are ready."""
    found = [stage.house.replica(stage.base, slots=SLOTS, threads=threads, number=number) for number in range(replicas)]
    try:
        for replica in found:
            replica.child.begin()
        for replica in found:
            replica.child.wait_ready()
        yield found
    finally:
        for replica in found:
            replica.child.end()
