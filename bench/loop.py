"""`make bench-loop`: documents, rankings, documents, rankings, without a command that builds, trains or promotes.

A new stack has one specialist with the pipeline `sft, dpo`, which is rebuilt when new documents or judgements suffice. The bench publishes
documents, has 80 prompts answered and ranked by three scripted experts, of whom one is noisy, and does both once more. It only waits for what the stack
does by itself. Then the engine's rollouts are compared with `generate`, as in `make bench-preferences`. The figures go to `.tailor/bench/loop.json`, and the services' logs to `loop-logs` there if the bench fails.

`python -m bench.loop --tiny` does the same with a tiny base in minutes, and leaves docs/benchmarks.md as it is.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from rich.console import Console

from bench.loop_experts import NOISY, ScriptedPanel, open_panel
from bench.loop_figures import (
    DOCUMENTS_1,
    DOCUMENTS_2,
    RANKINGS_1,
    RANKINGS_2,
    describe_phase,
    list_broken_bounds,
    measure_panel,
    measure_phase,
    render,
)
from bench.preference_set import ASKS, SUBJECTS
from bench.preferences import measure_rollouts
from bench.report import ROOT, keep, store
from services.training.recipe import FOLDER
from tailor.api.events.v1 import models_pb2
from tailor.api.registry.v1 import panel_pb2, registry_pb2
from tailor.api.training.v1 import training_pb2
from tailor.cli.calls import list_adapters, pages
from tailor.cli.connections import Connections, Endpoints
from tailor.cli.figures import decision_of
from tailor.cli.progress import ProgressReporter, Report, wait_for, wait_out_errors
from tailor.cli.publish import publish_all
from tailor.cli.run_views import FAILED, describe
from tailor.cli.specialists import define
from tailor.cli.submissions import Description, FileSubmission, collect
from tailor.client import TailorClient
from tailor.demo import DECIDED, describe_evaluation, wait_for_base, wait_until_served
from tailor.errors import FailedPrecondition, Reason
from tailor.local import stack
from tests.e2e.conftest import SAMPLE, SETTINGS
from tests.models import make_tiny_base

LOGS = ROOT / ".tailor" / "bench" / "loop-logs"
READY_SECONDS = 900.0
# How long a round may show no progress.
STALLED_SECONDS = 900.0
POLL_SECONDS = 1.0
# The sample's documents that are papers; it also has files that are refused, and mails.
PAPERS = ("board", "memo", "note", "report")
SPECIALIST = models_pb2.SpecialistChanged(
    name="loop-reports",
    base="smollm2-135m-instruct",
    recipe="lora",
    stages=["sft", "dpo"],
    keep_drafts=True,
    rows=models_pb2.RowPolicy(
        max_row_tokens=384,
        # One row of each document, and no limit of their tokens: the second round has about twice the documents' rows of the first.
        max_rows_per_document=1,
        held_out_percent=25,
        max_held_out_rows=40,
    ),
    # Half of the prompts go to all three experts, so that each round of rankings has some 160 judgements.
    judging=models_pb2.JudgingPolicy(overlap_share=0.5, experts=3),
    # More than half of a round's documents, and of its judgements, so that a round makes one dataset.
    # The quiet period is longer than any pause of the experts, who judge without one.
    rebuild=models_pb2.RebuildPolicy(min_new_items=36, quiet_seconds=45),
    sampling=models_pb2.SamplingDefaults(repetition_penalty=1.05, max_tokens=40),
    evaluation=models_pb2.EvaluationPolicy(
        max_rows=60, max_answers=2, few_shot=1, suites=["memorisation"], max_suite_items=2
    ),
    gate=models_pb2.Gate(min_rows=8, beat=["base"]),
)
TINY_SFT = """\
method = "sft"
[adapter]
kind = "lora"
r = 4
alpha = 8
[optimizer]
learning_rate = 1e-2
[batch]
tokens = 512
[limit]
epochs = 2
max_steps = 16
"""
TINY_DPO = """\
method = "dpo"
[adapter]
kind = "lora"
r = 4
alpha = 8
[optimizer]
learning_rate = 5e-3
[batch]
tokens = 1024
max_length = 256
[limit]
epochs = 20
max_steps = 16
"""


@dataclass(frozen=True)
class LoopPlan:
    """The specialist, and how many documents and prompts each round has."""

    definition: models_pb2.SpecialistChanged
    documents: int
    prompts: int


WHOLE = LoopPlan(SPECIALIST, 53, 80)


@dataclass(frozen=True)
class Loop:
    """A running stack with the specialist and its people, and the adapters that the bench has seen."""

    connections: Connections
    client: TailorClient
    panel: ScriptedPanel
    progress: ProgressReporter
    seen: set[str] = field(default_factory=set)
    figures: dict[str, Any] = field(default_factory=lambda: {"phases": {}, "panel": {}, "skipped": {}})


def main() -> int:
    """Returns 1 if a bound does not hold."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.loop", description="Two rounds of documents and rankings, without a command."
    )
    parser.add_argument("--tiny", action="store_true", help="with a tiny base, in minutes; keeps the figures only")
    parser.add_argument("--seed", type=int, default=1, help="of the prompts' order and of the noisy expert")
    arguments = parser.parse_args()
    # A bench that is asked to end stops its stack first.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tailor-loop-", ignore_cleanup_errors=True) as directory:
        figures = run(Path(directory).resolve(), arguments.seed, is_tiny=arguments.tiny)
    if arguments.tiny:
        figures["rollout_ratio"] = "not measured with a tiny base"
    else:
        figures["rollouts"] = measure_rollouts()
        figures["rollout_ratio"] = figures["rollouts"]["rollout_ratio"]
    figures |= {"seconds": time.monotonic() - started, "cores": len(os.sched_getaffinity(0))}
    figures["broken"] = list(list_broken_bounds(figures, NOISY))
    print(json.dumps(figures, indent=2), flush=True)
    if arguments.tiny:
        store("loop-tiny", figures)
    else:
        keep("loop", figures, render(figures))
    for sentence in figures["broken"]:
        print(f"A bound does not hold: {sentence}.", file=sys.stderr)
    return 1 if figures["broken"] else 0


def run(root: Path, seed: int, *, is_tiny: bool) -> dict[str, Any]:
    """Both rounds on a new stack, which is stopped at the end. Returns the figures."""
    state, progress = root / "state", ProgressReporter(Console())
    state.mkdir(mode=0o700)
    plan = prepare_tiny(root, state) if is_tiny else WHOLE
    first, second = choose_documents(plan.documents)
    prompts = choose_prompts(seed, 2 * plan.prompts)
    with open_loop(state, plan.definition, seed, progress) as loop:
        learn(loop, DOCUMENTS_1, lambda now: publish(loop, first, now))
        rank(loop, RANKINGS_1, prompts[: plan.prompts])
        learn(loop, DOCUMENTS_2, lambda now: publish(loop, second, now))
        rank(loop, RANKINGS_2, prompts[plan.prompts :])
        summarise(loop)
    return {"base": plan.definition.base, "seed": seed, "prompts": plan.prompts, **loop.figures}


@contextmanager
def open_loop(
    state: Path, definition: models_pb2.SpecialistChanged, seed: int, progress: ProgressReporter
) -> Iterator[Loop]:
    """Start a stack with the specialist and its experts, and stop it at the end."""
    try:
        with progress.step("up", "start a stack, and define the specialist"):
            stack.up(state).wait_ready(READY_SECONDS, lambda snapshot: progress.now(snapshot.describe_waiting()))
            connections = Connections(Endpoints(state))
            client = connections.client()
            wait_for_base(connections, client, definition.base, progress.now)
            wait_out_errors(lambda: define(connections.registry, definition), progress.now)
        with closing(connections), client, open_panel(connections, definition.name, seed) as panel:
            yield Loop(connections, client, panel, progress)
    except BaseException:
        shutil.copytree(state / "logs", LOGS, dirs_exist_ok=True)
        raise
    finally:
        stack.down(state)


def prepare_tiny(root: Path, state: Path) -> LoopPlan:
    """Write a tiny base, its recipes and the stack's settings. Returns a plan that takes minutes."""
    texts = [path.read_text(encoding="utf-8") for path in sorted((SAMPLE / "source").rglob("*.md"))]
    base, recipes = make_tiny_base(root / "tiny-base", texts), copy_recipes(root / "recipes")
    (state / "settings.toml").write_text(SETTINGS.format(base=base, recipes=recipes), encoding="utf-8")
    return TINY


def copy_recipes(target: Path) -> Path:
    """Copy the shipped recipes, and add those of the tiny base."""
    recipes = shutil.copytree(FOLDER, target)
    for name, recipe in (("tiny-sft", TINY_SFT), ("tiny-dpo", TINY_DPO)):
        (recipes / f"{name}.toml").write_text(recipe, encoding="utf-8")
    return recipes


def make_tiny_plan() -> LoopPlan:
    """Half of the documents and prompts, on the tests' tiny base."""
    definition = models_pb2.SpecialistChanged()
    definition.CopyFrom(SPECIALIST)
    definition.base, definition.recipe = "tiny", "tiny-sft"
    definition.recipes["dpo"] = "tiny-dpo"
    definition.rebuild.min_new_items = 16
    definition.rows.max_rows_per_document = 2
    definition.rows.max_train_tokens = 12_000
    definition.rows.max_held_out_rows = 12
    definition.sampling.max_tokens = 24
    return LoopPlan(definition, 24, 40)


TINY = make_tiny_plan()


def choose_documents(count: int) -> tuple[list[FileSubmission], list[FileSubmission]]:
    """The papers of both rounds, spread over the sample, so that both have all kinds."""
    papers = [
        item for item in collect([SAMPLE / "documents"], Description()) if item.path.name.partition("-")[0] in PAPERS
    ]
    chosen = [papers[number * len(papers) // (2 * count)] for number in range(2 * count)]
    return chosen[0::2], chosen[1::2]


def choose_prompts(seed: int, count: int) -> list[str]:
    """Different prompts in random order."""
    prompts = [ask.format(subject) for subject in SUBJECTS for ask in ASKS]
    return Random(f"{seed} prompts").sample(prompts, count)


# The phases.


def rank(loop: Loop, name: str, prompts: Sequence[str]) -> None:
    """Have the prompts answered and ranked, wait for what follows from that, and compare the panel's agreement."""

    def judge(now: Report) -> dict[str, int]:
        before = len(loop.panel.edits)
        pairs = loop.panel.ask(prompts, now)
        decisions = loop.panel.judge(now)
        counts = {
            "judgements": len(decisions),
            "edited_drafts": len(loop.panel.edits) - before,
            "pairs_of_drafts": pairs,
            "prompts_answered_alike": len(prompts) - pairs,
        }
        names = {expert.expert_id: expert.name for expert in loop.panel.experts}
        response = loop.connections.panel.GetAgreement(panel_pb2.GetAgreementRequest(specialist=loop.panel.specialist))
        figures = measure_panel(response, names, loop.panel.decisions)
        loop.figures["panel"][name] = asdict(figures)
        return counts

    learn(loop, name, judge)


def learn(loop: Loop, name: str, work: Callable[[Report], dict[str, int]]) -> None:
    """Do a phase's work, wait until the gate has decided on the adapter that follows from it, and measure."""
    started = time.monotonic()
    with loop.progress.step(f"{name}: input", "publish or rank"):
        counts = work(loop.progress.now)
    with loop.progress.step(f"{name}: round", "wait for dataset, run, evaluation and verdict"):
        item = wait_for_verdict(loop, loop.progress.now)
    if item.decision == registry_pb2.DECISION_PASSED:
        with loop.progress.step(f"{name}: served", "wait until callers get the adapter"):
            wait_until_served(loop.connections, loop.client, item.adapter, loop.progress.now)
    for reason in item.reasons:
        loop.progress.note(f"{decision_of(item.decision)}: {reason}")
    seconds = {
        key.partition(": ")[2]: took for key, took in loop.progress.seconds.items() if key.startswith(f"{name}: ")
    }
    loop.figures["phases"][name] = {
        **measure_phase(item.evaluation),
        **counts,
        **measure_adapter(loop, item.adapter),
        "verdict": decision_of(item.decision),
        "reasons": list(item.reasons),
        "seconds": time.monotonic() - started,
        "seconds_by_step": seconds,
    }
    loop.progress.note(describe_phase(loop.figures["phases"][name]))


def publish(loop: Loop, documents: Sequence[FileSubmission], now: Report) -> dict[str, int]:
    """Publish documents, and wait until each is anonymised or rejected."""
    before = count_outcomes(loop)
    published = publish_all(loop.connections, documents, lambda count: now(f"{count} published")).total

    def accounted() -> tuple[tuple[int, int] | None, str]:
        anonymized, rejected = (new - old for new, old in zip(count_outcomes(loop), before, strict=True))
        text = f"{anonymized} anonymised, {rejected} rejected of {published}"
        return (anonymized, rejected) if anonymized + rejected >= published else None, text

    anonymized, rejected = wait_for(accounted, now)
    return {"documents": published, "documents_anonymized": anonymized, "documents_rejected": rejected}


def wait_for_verdict(loop: Loop, now: Report) -> registry_pb2.CatalogueAdapter:
    """Wait for a verdict on an adapter that the bench has not seen. Raises FailedPrecondition if a run fails, DeadlineExceeded if nothing happens."""

    def decided() -> tuple[registry_pb2.CatalogueAdapter | None, str]:
        for item in list_adapters(loop.connections.registry, loop.panel.specialist):
            digest = item.adapter.digest
            if digest in loop.seen or item.adapter.intermediate:
                continue
            if item.HasField("evaluation") and item.decision in DECIDED:
                loop.seen.add(digest)
                return item, ""
            return None, describe_evaluation(loop.connections, digest)
        return None, describe_newest_run(loop)

    return wait_for(decided, now, stalled_seconds=STALLED_SECONDS, poll_seconds=POLL_SECONDS)


def describe_newest_run(loop: Loop) -> str:
    """What the newest run does. Raises FailedPrecondition if it failed."""
    runs = list_runs(loop)
    newest = max(runs, key=lambda run: run.create_time.ToNanoseconds(), default=None)
    if newest is None or newest.adapter_digest in loop.seen:
        return "waiting for a run to begin by itself"
    if newest.state in FAILED:
        raise FailedPrecondition(
            Reason(newest.reason or Reason.RUN_FAILED), newest.message or "The run made no adapter."
        )
    return describe(newest)


# What is measured.


def measure_adapter(loop: Loop, adapter: models_pb2.AdapterTrained) -> dict[str, Any]:
    """The round, and the datasets that the adapter learned from."""
    digests = {"sft": adapter.sft_dataset_digest, "preference": adapter.preference_dataset_digest}
    datasets = {}
    for kind, digest in digests.items():
        if digest:
            dataset = loop.connections.registry.GetDataset(registry_pb2.GetDatasetRequest(digest=digest)).dataset
            datasets[kind] = {
                "digest": digest,
                "train_rows": dataset.train_rows,
                "held_out_rows": dataset.held_out_rows,
                "judgements": dataset.judgements,
            }
    return {
        "round": adapter.round,
        "datasets": datasets,
        "rows_skipped": adapter.rows_skipped,
        "adapter": adapter.digest,
    }


def summarise(loop: Loop) -> None:
    """The figures of the whole loop."""
    figures, connections = loop.figures, loop.connections
    phases = figures["phases"].values()
    runs = list_runs(loop)
    decisions = registry_pb2.ListDecisionsRequest(specialist=loop.panel.specialist)
    progress = connections.registry.GetSpecialist(registry_pb2.GetSpecialistRequest(name=loop.panel.specialist)).round
    figures["rounds"] = count_rounds(loop)
    figures["runs"] = [training_pb2.RunState.Name(run.state).removeprefix("RUN_STATE_").lower() for run in runs]
    figures["operator_decisions"] = len(list(pages(connections.registry.ListDecisions, decisions)))
    figures["ranked_prompts"] = {"all": progress.prompts, "held_out": progress.held_out_prompts}
    figures["noisy_expert_found"] = figures["panel"][RANKINGS_2]["noisy_expert"] == NOISY
    pairs = sum(phase.get("pairs_of_drafts", 0) for phase in phases)
    figures["skipped"] = {
        "documents rejected": sum(phase.get("documents_rejected", 0) for phase in phases),
        "prompts whose answers were all alike": sum(phase.get("prompts_answered_alike", 0) for phase in phases),
        "pairs of drafts without a majority": pairs - progress.prompts,
        "rows too long to train on": sum(phase["rows_skipped"] for phase in phases),
        "rows too long to evaluate": sum(phase["rows_too_long"] for phase in phases),
        "held-out rows beyond an evaluation's limit": sum(
            phase["held_out_rows"] - phase["rows"] - phase["rows_too_long"] for phase in phases
        ),
    }


def count_rounds(loop: Loop) -> int:
    """Datasets of rankings that the stack built."""
    request = registry_pb2.ListDatasetsRequest(specialist=loop.panel.specialist)
    datasets = pages(loop.connections.registry.ListDatasets, request)
    return sum(dataset.kind == models_pb2.DATASET_KIND_PREFERENCE for dataset in datasets)


def count_outcomes(loop: Loop) -> tuple[int, int]:
    """Documents that were anonymised, and that were rejected."""
    flow = loop.connections.registry.GetFlow(registry_pb2.GetFlowRequest())
    return flow.anonymized, sum(flow.rejected.values())


def list_runs(loop: Loop) -> list[training_pb2.Run]:
    """All runs of the specialist."""
    request = training_pb2.ListRunsRequest(specialist=loop.panel.specialist)
    return list(pages(loop.connections.training.ListRuns, request))


if __name__ == "__main__":
    sys.exit(main())
