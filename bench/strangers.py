"""`make strangers`: a corpus by other hands goes through the product with its defaults, from documents to a verdict and answers.

Debian's documentation packages are published (manuals made here where apt is not at hand), a specialist without `[rows]` is defined, and what
`tailor build` proposes for half an hour of training is accepted. The figures go to `.tailor/bench/strangers.json`. Answers by rule are those of
bench/strangers_rules.py. A reader's marks of drawn answers are in bench/data/strangers_marks.tsv, those of strings that the barrier replaces in
strangers_replaced.tsv; what has no mark counts as wrong. Manuals made here depend on the version of Python and have no marks.
"""

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.report import ROOT, store
from bench.strangers_alarms import measure_alarms
from bench.strangers_corpus import prepare
from bench.strangers_rules import draw, has_prose, read_marks
from tailor.api.events.v1 import models_pb2
from tailor.api.registry.v1 import registry_pb2
from tailor.api.synthetic.v1 import synthetic_pb2
from tailor.api.training.v1 import training_pb2
from tailor.cli.calls import pages
from tailor.cli.connections import Connections, Endpoints
from tailor.cli.figures import decision_of
from tailor.cli.progress import ProgressReporter, wait_for, wait_out_errors
from tailor.cli.published_files import PublishedFiles
from tailor.cli.run_views import describe_forecast, forecast_run
from tailor.cli.submissions import FileSubmission
from tailor.client import Message
from tailor.demo import (
    Sample,
    ask,
    build,
    define_specialist,
    evaluate,
    publish_documents,
    start_stack,
    train,
    wait_for_base,
    wait_until_served,
)
from tailor.local import stack

NAME = "strangers"
HOURS = 0.5
# More are marked than are read: a change of the builder may remove some.
ROWS_BY_RULE, ROWS_READ, ROWS_MARKED = 300, 60, 90
SPECIALIST = models_pb2.SpecialistChanged(
    name=NAME,
    base="smollm2-135m-instruct",
    recipe="lora",
    max_training_hours=HOURS,
    # An evaluation with the defaults reads 300 held-out rows and answers them all, which takes hours on two cores.
    evaluation=models_pb2.EvaluationPolicy(max_rows=60, max_answers=4, suites=["memorisation"], max_suite_items=2),
    sampling=models_pb2.SamplingDefaults(max_tokens=64),
)
QUESTIONS = (
    "How do I restore a database from a backup?",
    "Wie melde ich einen Fehler in einem Paket?",
    "What must a maintainer do before a package is uploaded?",
)


@dataclass(frozen=True)
class Trial:
    """A running stack, and what the bench learns from it."""

    connections: Connections
    progress: ProgressReporter
    figures: dict[str, Any] = field(default_factory=dict)
    drawn: list[str] = field(default_factory=list)


def main() -> int:
    """Returns 1 if the corpus does not come to a verdict, or a bound of the figures does not hold."""
    parser = argparse.ArgumentParser(prog="python -m bench.strangers", description=__doc__)
    parser.add_argument("--made", action="store_true", help="use manuals that are made here, without apt")
    parser.add_argument("--state-dir", type=Path, help="keep the stack's state here")
    arguments = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tailor-strangers-") as folder:
        state_dir = arguments.state_dir or Path(folder) / "state"
        submissions = prepare(Path(folder) / "corpus", made=arguments.made)
        try:
            figures = run(state_dir, submissions) | measure_alarms(submissions)
        finally:
            stack.down(state_dir)
    figures["seconds"] = round(time.monotonic() - started)
    store("strangers", figures)
    sys.stdout.write(json.dumps(figures, indent=2, ensure_ascii=False) + "\n")
    broken = list_broken(figures)
    sys.stdout.write("".join(f"BROKEN: {sentence}\n" for sentence in broken))
    return 1 if broken else 0


def run(state_dir: Path, submissions: Sequence[FileSubmission]) -> dict[str, Any]:
    """Take the documents to a verdict. Blocks for the better part of an hour."""
    progress = ProgressReporter(Console(stderr=True))
    with progress.step("up", "start the stack"):
        start_stack(state_dir, progress.now)
    with closing(Connections(Endpoints(state_dir))) as connections, connections.client() as client:
        trial = Trial(connections, progress)
        with progress.step("documents", "publish and follow every document through the barrier"):
            wait_for_base(connections, client, SPECIALIST.base, progress.now)
            publish(trial, state_dir, submissions)
        with progress.step("dataset", "build with the defaults, and accept what fits half an hour"):
            first = build(connections, NAME, progress.now)
            measure_rows(trial, first)
            built = choose_fitting(trial, first)
            measure_share(trial, built)
        with progress.step("training", "train an adapter"):
            adapter = train(connections, built, progress.now)
        with progress.step("evaluation", "measure it on held-out rows"):
            trial.figures["verdict"] = decision_of(evaluate(connections, adapter, progress.now).decision)
        with progress.step("asking", "ask what such manuals answer"):
            model = NAME if trial.figures["verdict"] == "passed" else "base"
            if model == NAME:
                wait_until_served(connections, client, adapter, progress.now)
            trial.figures["answers"] = {
                question: ask(client, model, [Message("user", question)], {}, progress.now).text
                for question in QUESTIONS
            }
        count_marks(trial)
        trial.figures["runs_failed"] = len(
            [item for item in list_runs(trial) if item.state == training_pb2.RUN_STATE_FAILED]
        )
    return trial.figures


def publish(trial: Trial, state_dir: Path, submissions: Sequence[FileSubmission]) -> None:
    """Publish the documents, and count those that were anonymised or rejected."""
    sample = Sample(Path(), SPECIALIST, list(submissions), list(QUESTIONS))
    define_specialist(trial.connections, state_dir, sample, trial.progress.now)
    known = PublishedFiles(state_dir / "published.json")
    outcome = publish_documents(trial.connections, known, sample, True, trial.progress.now)
    rejected = outcome["documents_rejected"]
    accounted = outcome["documents_anonymized"] + sum(rejected.values())
    trial.figures.update(
        {
            "documents": len(submissions),
            "accounted": accounted / len(submissions),
            "anonymized": outcome["documents_anonymized"],
            "rejected": rejected,
        }
    )


def choose_fitting(trial: Trial, built: synthetic_pb2.BuildDatasetResponse) -> synthetic_pb2.BuildDatasetResponse:
    """The dataset whose run starts by itself: the first one, or one with the setting that its forecast proposes."""
    connections, now = trial.connections, trial.progress.now
    plan = forecast_run(connections, built.dataset)
    assert plan is not None
    trial.progress.note(describe_forecast(plan))
    trial.figures["forecast_hours"] = round(plan.seconds / 3600, 2)
    trial.figures["setting"] = ""
    if plan.needs_approval:
        trial.figures["setting"] = f"max_train_tokens = {plan.fitting_train_tokens:_}"
        limit_tokens(trial, plan)
        first = built.dataset.digest

        def rebuild() -> tuple[synthetic_pb2.BuildDatasetResponse | None, str]:
            again = build(connections, NAME, now)
            return (again if again.dataset.digest != first else None), "waiting until synthetic reads the definition"

        built = wait_for(rebuild, now)
        fitted = forecast_run(connections, built.dataset)
        assert fitted is not None
        trial.progress.note(describe_forecast(fitted))
        trial.figures["fitted_hours"] = round(fitted.seconds / 3600, 2)
    return built


def limit_tokens(trial: Trial, plan: training_pb2.RunPlan) -> None:
    """Update the specialist by the setting that its forecast proposes."""
    registry, now = trial.connections.registry, trial.progress.now
    found = registry.GetSpecialist(registry_pb2.GetSpecialistRequest(name=NAME)).specialist
    found.rows.max_train_tokens = plan.fitting_train_tokens
    wait_out_errors(lambda: registry.UpdateSpecialist(registry_pb2.UpdateSpecialistRequest(specialist=found)), now)


def measure_rows(trial: Trial, built: synthetic_pb2.BuildDatasetResponse) -> None:
    """What the rows of the defaults teach: what was left out, the share of the largest document, and drawn answers of both splits."""
    rows = measure_share(trial, built)
    held_out = list_rows(trial, built.dataset.digest, synthetic_pb2.SPLIT_HELD_OUT)
    answers = [row.messages[-1].content for row in [*rows, *held_out]]
    bare = [answer for answer in draw(answers, ROWS_BY_RULE) if not has_prose(answer)]
    trial.figures.update(
        {
            "first_train_rows": len(rows),
            "skipped": {entry.reason: entry.rows for entry in built.skipped},
            "rows_left_out": {entry.reason: entry.rows for entry in built.skipped if entry.reason == "template"},
            "coverage": round(built.dataset.figures.coverage, 4),
            "grounded": round(built.dataset.figures.grounded, 4),
            "answers_without_prose": len(bare),
        }
    )
    trial.drawn.extend(draw(answers, ROWS_MARKED))
    (ROOT / ".tailor" / "bench").mkdir(parents=True, exist_ok=True)
    (ROOT / ".tailor" / "bench" / "strangers_rows.json").write_text(
        json.dumps({"drawn": trial.drawn, "without_prose": bare}, indent=2, ensure_ascii=False), encoding="utf-8"
    )


def count_marks(trial: Trial) -> None:
    """How many of the drawn answers a reader found wrong, or has not read. A reader may do that while the run trains."""
    read, marks = trial.drawn[:ROWS_READ], read_marks()
    trial.figures["answers_read_wrong"] = sum(marks.knows(answer) and not marks.is_right(answer) for answer in read)
    trial.figures["answers_unmarked"] = sum(not marks.knows(answer) for answer in read)


def measure_share(trial: Trial, built: synthetic_pb2.BuildDatasetResponse) -> Sequence[synthetic_pb2.Row]:
    """The train rows. The largest document's share of their tokens is kept, that of whichever dataset has the largest."""
    rows = list_rows(trial, built.dataset.digest, synthetic_pb2.SPLIT_TRAIN)
    tokens: Counter[str] = Counter()
    for row in rows:
        for document_id in row.document_ids[:1]:
            tokens[document_id] += row.tokens
    share = round(max(tokens.values()) / tokens.total(), 4)
    trial.figures["largest_document_share"] = max(share, trial.figures.get("largest_document_share", 0.0))
    trial.figures["train_rows"] = len(rows)
    return rows


def list_rows(trial: Trial, digest: str, split: synthetic_pb2.Split.ValueType) -> Sequence[synthetic_pb2.Row]:
    """All rows of one split of a dataset."""
    request = synthetic_pb2.ListRowsRequest(dataset_digest=digest, split=split, page_size=100)
    rows = trial.connections.synthetic.ListRows
    return wait_out_errors(lambda: list(pages(rows, request)), trial.progress.now)


def list_runs(trial: Trial) -> Sequence[training_pb2.Run]:
    """The specialist's runs."""
    return list(pages(trial.connections.training.ListRuns, training_pb2.ListRunsRequest(specialist=NAME)))


def list_broken(figures: dict[str, Any]) -> list[str]:
    """The bounds that do not hold, as sentences."""
    bounds = {
        "at least 200 documents": figures["documents"] >= 200,
        "every document accounted for": figures["accounted"] == 1.0,
        "no run failed": figures["runs_failed"] == 0,
        "no answer without prose by rule": figures["answers_without_prose"] == 0,
        "no answer without prose by a reader": figures["answers_read_wrong"] == 0,
        "every drawn answer read (.tailor/bench/strangers_rows.json has them)": figures["answers_unmarked"] == 0,
        "at most 2 false alarms of the barrier per 1,000 words": figures["false_alarms_per_1000"] <= 2,
        "no document above a tenth of the train tokens": figures["largest_document_share"] <= 0.1,
    }
    return [sentence for sentence, holds in bounds.items() if not holds]


if __name__ == "__main__":
    sys.exit(main())
