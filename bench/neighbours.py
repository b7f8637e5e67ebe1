"""`make bench-neighbours`: what one sender's attack costs the others on a running installation, and how the cost of a text grows with its length.

While an attack goes on, other callers have a prompt masked, ask for an answer, and read `/readyz` of each service. Then the same sender does the
same work with plain content, which is what each attack is compared with. The figures go to `.tailor/bench/neighbours.json`. Half an hour on two cores;
`python -m bench.neighbours --seconds 15` is a try.
"""

import argparse
import json
import math
import os
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import urllib3

from bench.neighbours_attacks import ATTACKS, Attack, Sender
from bench.report import store
from services.anonymization.anonymizer import TextAnonymizer
from services.anonymization.surrogates.surrogates import Surrogates
from tailor.api.anonymization.v1 import anonymization_pb2, anonymization_pb2_grpc
from tailor.api.common.v1 import common_pb2
from tailor.api.inference.v1 import inference_pb2, inference_pb2_grpc
from tailor.api.registry.v1 import registry_pb2
from tailor.cli.connections import Connections, Endpoints
from tailor.cli.progress import wait_out_errors
from tailor.local import secrets, stack
from tailor.local.layout import SERVICES, Layout
from tailor.rpc.channel import open_channel
from tailor.rpc.identity import Identity
from tests.analyzers import load_english
from tests.unit.anonymization.fakes import MemoryVault

SECONDS = 60.0
PAUSE_SECONDS, CALL_SECONDS, PROBE_SECONDS = 0.5, 60.0, 10.0
UP_SECONDS = 600.0
# Until what an attack left behind has ended, such as a text that is being read.
CALM_SECONDS = 45.0
# Nobody notices a wait below this; a ratio of two such waits says nothing.
UNNOTICED_SECONDS = 0.25
LENGTHS = (10_000, 100_000, 1_000_000)
UNITS = (
    "St. ",
    "A.A.A.",
    "Ltd Ltd ",
    "The committee met Dr Ngozi Okafor of Aldermoor Ltd on 3 May and agreed the budget.\n\n",
)
PROMPT = "Please write to Mr Peter Hallam of Brackenridge Ltd about invoice 4471."
BOUNDS: Mapping[str, Callable[[float], bool]] = {
    "attacks": lambda figure: figure >= 8,
    "others_failed": lambda figure: figure == 0,
    "others_p95_ratio": lambda figure: figure <= 2,
    "restarts": lambda figure: figure == 0,
    "cost_exponent": lambda figure: figure <= 1.1,
}


def main() -> int:
    """Measure, print and keep the figures. Returns 1 if a bound is broken."""
    parser = argparse.ArgumentParser(prog="python -m bench.neighbours", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=SECONDS, help="seconds of each attack")
    parser.add_argument("--only", default="", help="the attacks whose names have this part")
    arguments = parser.parse_args()
    attacks = [attack for attack in ATTACKS if arguments.only in attack.name]
    with tempfile.TemporaryDirectory(prefix="tailor-neighbours-", ignore_cleanup_errors=True) as folder:
        state = Path(folder).resolve() / "state"
        try:
            figures = measure(state, attacks, arguments.seconds)
        finally:
            stack.down(state)
    figures["cost_seconds"] = costs = measure_costs()
    figures["cost_exponent"] = round(max(map(exponent, costs.values())), 3)
    figures["cores"] = len(os.sched_getaffinity(0))
    if arguments.seconds >= SECONDS and not arguments.only:
        store("neighbours", figures)
    sys.stdout.write(json.dumps(figures, indent=2) + "\n")
    broken = [name for name, holds in BOUNDS.items() if not holds(figures[name])]
    sys.stdout.write(f"broken: {', '.join(broken) or 'nothing'}\n")
    return 1 if broken else 0


def measure(state: Path, attacks: Sequence[Attack], seconds: float) -> dict[str, Any]:
    """The figures of all attacks on one stack."""
    running = stack.up(state)
    running.wait_ready(UP_SECONDS)
    with closing(Connections(Endpoints(state))) as connections:
        wait_out_errors(lambda: _wait_for_answer(connections), lambda text: None)
        others, sender = Others(connections, state), Sender(connections, state, create_key(connections, "one sender"))
        results: dict[str, Any] = {}
        for attack in attacks:
            waits = {}
            for name, work in (("plain", attack.plain), ("attack", attack.attack)):
                with others.calling() as calls, sending(partial(work, sender, seconds)) as finished:
                    time.sleep(seconds)
                waits[name] = calls
                finished.wait(CALM_SECONDS)
                _wait_until_calm(others)
            results[attack.name] = compare(waits["attack"], waits["plain"])
            sys.stdout.write(f"{attack.name}: {json.dumps(results[attack.name])}\n")
            sys.stdout.flush()
    parts = running.snapshot().components.values()
    return {
        "attacks": len(results),
        "others_failed": sum(result["failed"] for result in results.values()),
        "others_p95_ratio": max(result["ratio"] for result in results.values()),
        "restarts": sum(part.restarts for part in parts),
        "ended": {part.name: part.last_end for part in parts if part.last_end},
        "by_attack": results,
        "seconds": seconds,
    }


def create_key(connections: Connections, name: str) -> str:
    """The secret of a new caller's key."""
    return connections.registry.CreateKey(registry_pb2.CreateKeyRequest(name=name, role=common_pb2.ROLE_CALLER)).secret


@contextmanager
def sending(work: Callable[[], object]) -> Iterator[threading.Event]:
    """Do the work of one sender in a thread. Its errors are its own: an attack may well be refused. Yields what is set when it has ended."""
    finished = threading.Event()

    def send() -> None:
        with suppress(grpc.RpcError):
            work()
        finished.set()

    threading.Thread(target=send, daemon=True).start()
    yield finished


class Waits:
    """The seconds that others waited, by what they waited for, and what failed."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.failed: dict[str, str] = {}

    def p95(self, kind: str) -> float:
        """The 95th percentile."""
        return float(np.percentile(self.seconds[kind], 95)) if self.seconds[kind] else math.inf


class Others:
    """Callers with keys of their own, one for each kind of call."""

    def __init__(self, connections: Connections, state: Path) -> None:
        addresses = stack.connection(state).service_addresses
        identity = Identity.load("inference", secrets.ensure(Layout(state)).identity_key_file("inference"))
        barrier = open_channel(addresses["anonymization"], lambda: identity.token("anonymization"))
        self._barrier = anonymization_pb2_grpc.AnonymizationServiceStub(barrier)
        key = create_key(connections, "others")
        self._inference = inference_pb2_grpc.InferenceServiceStub(open_channel(addresses["inference"], key))
        parts = stack.Stack(Layout(state)).snapshot().components
        self._status = {name: parts[name].addresses["status"] for name in SERVICES}

    @contextmanager
    def calling(self) -> Iterator[Waits]:
        """Call again and again, one thread for each kind, until the end of the block and of the calls that have begun."""
        waits, ended = Waits(), threading.Event()
        kinds = {"prompt": self.mask, "answer": self.ask, **{f"readyz {name}": self._probe(name) for name in SERVICES}}

        def repeat(kind: str, call: Callable[[], float]) -> None:
            while not ended.is_set():
                try:
                    waits.seconds[kind].append(call())
                except (grpc.RpcError, urllib3.exceptions.HTTPError) as error:
                    waits.failed[f"{kind} {time.monotonic():.0f}"] = str(error)[:200]
                ended.wait(PAUSE_SECONDS)

        threads = [threading.Thread(target=repeat, args=each) for each in kinds.items()]
        for thread in threads:
            thread.start()
        try:
            yield waits
        finally:
            ended.set()
            for thread in threads:
                thread.join()

    def mask(self) -> float:
        """Seconds until a prompt of one sentence is masked."""
        begun = time.monotonic()
        self._barrier.AnonymizePrompt(anonymization_pb2.AnonymizePromptRequest(texts=[PROMPT]), timeout=CALL_SECONDS)
        return time.monotonic() - begun

    def ask(self) -> float:
        """Seconds until the first token of an answer of two tokens."""
        begun, first = time.monotonic(), 0.0
        request = inference_pb2.GenerateRequest(
            model="base", prompt=PROMPT, sampling=inference_pb2.Sampling(max_tokens=2)
        )
        for piece in self._inference.StreamGenerate(
            inference_pb2.StreamGenerateRequest(request=request), timeout=CALL_SECONDS
        ):
            first = first or (time.monotonic() - begun if piece.text or piece.finish_reason else 0.0)
        return first

    def _probe(self, name: str) -> Callable[[], float]:
        pool = urllib3.PoolManager(retries=False)

        def probe() -> float:
            begun = time.monotonic()
            pool.request("GET", f"{self._status[name]}/readyz", timeout=PROBE_SECONDS)
            return time.monotonic() - begun

        return probe


def compare(attack: Waits, plain: Waits) -> dict[str, Any]:
    """The largest ratio of two 95th percentiles, of what it is, both in seconds, and what failed during either."""
    ratios = {
        kind: max(attack.p95(kind), UNNOTICED_SECONDS) / max(plain.p95(kind), UNNOTICED_SECONDS)
        for kind in attack.seconds.keys() | plain.seconds.keys()
    }
    worst = max(ratios, key=lambda kind: ratios[kind])
    failed = attack.failed | plain.failed
    return {
        "ratio": round(ratios[worst], 2),
        "of": worst,
        "p95_s": {
            kind: [round(waits.p95(kind), 3) for waits in (attack, plain)] for kind in ("prompt", "answer", worst)
        },
        "failed": len(failed),
        "why": sorted(failed.values())[:3],
    }


def measure_costs() -> dict[str, list[float]]:
    """CPU seconds of the whole barrier for texts of LENGTHS characters, by the unit that is repeated."""
    analyzer = load_english()
    costs = {}
    for unit in UNITS:
        anonymizer = TextAnonymizer(
            analyzer, Surrogates(MemoryVault(), analyzer.lexicon, b"s" * 32), seconds_per_text=1e9
        )
        costs[unit] = [_cost(anonymizer, (unit * (length // len(unit) + 1))[:length]) for length in LENGTHS]
    return costs


def exponent(costs: Sequence[float]) -> float:
    """By which power of the length the cost grows, from the shortest text to the longest: 1 is in proportion."""
    return math.log(costs[-1] / costs[0]) / math.log(LENGTHS[-1] / LENGTHS[0])


def _cost(anonymizer: TextAnonymizer, text: str) -> float:
    begun = time.process_time()
    anonymizer.anonymize((text,))
    return round(time.process_time() - begun, 3)


def _wait_for_answer(connections: Connections) -> None:
    request = inference_pb2.GenerateRequest(model="base", prompt="Hello", sampling=inference_pb2.Sampling(max_tokens=1))
    stub = inference_pb2_grpc.InferenceServiceStub(connections.channel("inference"))
    stub.Generate(request, timeout=CALL_SECONDS)


def _wait_until_calm(others: Others) -> None:
    """Until a prompt and an answer are as quick as anybody expects, or for CALM_SECONDS."""
    deadline = time.monotonic() + CALM_SECONDS
    while time.monotonic() < deadline:
        with suppress(grpc.RpcError):
            if others.mask() < 1 and others.ask() < 1:
                return


if __name__ == "__main__":
    sys.exit(main())
