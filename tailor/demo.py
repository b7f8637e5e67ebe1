"""The whole life of a specialist, from documents to answers, in one file. Begin reading here.

`make demo` runs it against the embedded stack, in this order:

    start the stack > fetch a base > publish documents > build a dataset > train > evaluate > ask

Nothing in this file is privileged. Documents go to a Kafka topic, facts come back on Kafka topics, and everything else is a gRPC call
that any program with an API key can make.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tailor import wire
from tailor.api.evaluation.v1 import evaluation_pb2
from tailor.api.events.v1 import documents_pb2, models_pb2
from tailor.api.registry.v1 import registry_pb2
from tailor.api.synthetic.v1 import synthetic_pb2
from tailor.api.training.v1 import training_pb2
from tailor.cli.build import build_dataset, describe_left_out
from tailor.cli.calls import list_adapters, pages, unary
from tailor.cli.connections import Connections, Endpoints
from tailor.cli.datasets import describe_figures
from tailor.cli.definitions import read_definition
from tailor.cli.events import decode
from tailor.cli.figures import decision_of
from tailor.cli.messages import to_dict
from tailor.cli.output import short
from tailor.cli.publish import publish_all
from tailor.cli.reader import Start, TopicReader
from tailor.cli.run_views import FAILED, describe
from tailor.cli.specialists import define
from tailor.cli.story import Story, Tell, wait_for, wait_out_errors
from tailor.cli.submissions import Description, FileSubmission, collect
from tailor.client import Answer, TailorClient
from tailor.client.requests import Options
from tailor.errors import DeadlineExceeded, FailedPrecondition, InvalidArgument, NotFound, Reason
from tailor.events.envelope import new_id
from tailor.local import stack

Figures = dict[str, Any]

STEPS = ("up", "base", "documents", "dataset", "training", "evaluation", "asking")
OUTCOMES = ("document.anonymized.v1", "document.rejected.v1")
BASE = "base"
DECIDED = (registry_pb2.DECISION_PASSED, registry_pb2.DECISION_REFUSED, registry_pb2.DECISION_UNDECIDED)
NOTHING_NEW = "nothing is new: the corpus is unchanged, no run was started"
UP_SECONDS = 180.0
QUIET_MS = 2000
AGREE_SECONDS = 90.0
TRAINING_STARTS_SECONDS = 60.0


@dataclass(frozen=True)
class Sample:
    """A specialist's definition, the documents that it learns from, and questions to ask at the end."""

    definition: models_pb2.SpecialistChanged
    documents: list[FileSubmission]
    questions: list[str]


def read_sample(folder: Path) -> Sample:
    """Read the sample. Raises InvalidArgument if a file of it is invalid."""
    return Sample(
        definition=read_definition(folder / "specialist.toml"),
        documents=collect([folder / "documents"], Description()),
        questions=read_questions(folder / "questions.json"),
    )


def run_demo(state_dir: Path, sample: Sample, story: Story) -> Figures:
    """Run every step and return the figures, which are also written to `demo.json` in the state directory. Blocks for minutes.

    If the gate refuses the adapter or cannot decide, that is a result: `promoted` is False and no questions are asked.
    """
    definition = sample.definition
    (state_dir / "demo.json").unlink(missing_ok=True)
    now = story.now

    with closing(Connections(Endpoints(state_dir))) as connections:
        with story.step("up", "start the broker, the stores and the services on this machine"):
            start_stack(state_dir, now)
        with connections.client() as client:
            with story.step("base", "fetch the model that adapters are trained on"):
                wait_for_base(connections, client, definition.base, now)
            with story.step("documents", "publish the sample and follow every document through the barrier"):
                figures = publish_documents(connections, definition, sample.documents, now)
            with story.step("dataset", "turn the anonymised documents into rows"):
                built = build(connections, definition.name, now)
            with story.step("training", "train an adapter of the base on these rows"):
                adapter = train(connections, built, now)
            with story.step("evaluation", "measure the adapter on held-out rows; promote it if it meets the gate"):
                item = evaluate(connections, adapter, now)
                figures |= model_figures(built.dataset, item)
                if figures["promoted"]:
                    wait_until_served(connections, client, adapter, now)
                for reason in item.reasons:
                    story.note(f"{decision_of(item.decision)}: {reason}")
            if figures["promoted"]:
                with story.step("asking", "ask the base and the specialist the same questions"):
                    figures["answers"] = ask_both(client, definition, sample.questions, now)
    figures["seconds"] = dict.fromkeys(STEPS, 0.0) | story.seconds
    save(state_dir / "demo.json", figures)
    return figures


# The steps, in their order. Each calls `now` to say what it is doing.


def start_stack(state_dir: Path, now: Tell) -> None:
    """Start the embedded stack and wait until every part is healthy."""
    stack.up(state_dir).wait_ready(UP_SECONDS, lambda snapshot: now(f"waiting for {snapshot.describe_waiting()}"))
    now("every part is healthy")


def wait_for_base(connections: Connections, client: TailorClient, name: str, now: Tell) -> None:
    """Wait until training has stored the base and inference serves it."""

    def check() -> tuple[bool | None, str]:
        bases = unary("training", connections.training.ListBases, training_pb2.ListBasesRequest()).bases
        return any(base.name == name for base in bases) or None, f"fetching {name}"

    wait_for(check, now)
    wait_out_errors(client.specialists, now)
    now(f"{name} is stored and answers")


def publish_documents(
    connections: Connections, definition: models_pb2.SpecialistChanged, submissions: Sequence[FileSubmission], now: Tell
) -> Figures:
    """Define the specialist, publish its documents, and read events until each document is anonymised or rejected."""
    is_new = wait_out_errors(lambda: define(connections.registry, definition), now).created
    with wait_out_errors(lambda: TopicReader(connections.kafka(), OUTCOMES, Start.END), now) as reader:
        while not is_new and wait_out_errors(lambda: reader.poll(QUIET_MS), now):
            now("waiting for documents that were published earlier")
        since = wire.now()
        published = publish_all(connections, submissions, lambda count: now(f"{count} published")).total
        outcomes: dict[str, Any] = {}  # the last event of each submission, because events come at least once

        def all_accounted() -> tuple[Figures | None, str]:
            for record in reader.poll():
                event = decode(record.topic, record.value)
                outcomes[event.submission_id] = event
            figures = count_outcomes(outcomes.values(), published)
            return figures if len(outcomes) >= published else None, describe_outcomes(figures)

        figures = wait_for(all_accounted, now)

    def registry_agrees() -> tuple[bool | None, str]:
        flow = unary("registry", connections.registry.GetFlow, registry_pb2.GetFlowRequest(since=since))
        counts = {"documents_anonymized": flow.anonymized, "documents_rejected": dict(flow.rejected)}
        text = f"the registry counts {flow.anonymized} anonymised, {sum(flow.rejected.values())} rejected"
        return figures == figures | counts or None, text

    wait_for(registry_agrees, now, stalled_seconds=AGREE_SECONDS)
    now(describe_outcomes(figures))
    return figures


def build(connections: Connections, specialist: str, now: Tell) -> synthetic_pb2.BuildDatasetResponse:
    """Build the specialist's dataset, or get the existing one if no document is new."""
    request_id = new_id("req")
    answer = wait_out_errors(lambda: build_dataset(connections.synthetic, specialist, request_id), now)
    dataset = answer.dataset
    now(
        f"{dataset.train_rows} rows, {dataset.held_out_rows} held out; {describe_figures(dataset)} "
        f"{answer.near_duplicates} near-duplicates left out"
    )
    now(f"left out, mostly by the sample's own limits: {describe_left_out(answer.left_out)}")
    return answer


def train(connections: Connections, built: synthetic_pb2.BuildDatasetResponse, now: Tell) -> models_pb2.AdapterTrained:
    """Follow the run that training starts by itself for a new dataset. Raises FailedPrecondition if the run fails."""
    dataset = built.dataset
    if not built.created:
        adapters = wait_out_errors(lambda: list(list_adapters(connections.registry, dataset.specialist)), now)
        for item in adapters:
            if item.adapter.dataset_digest == dataset.digest:
                now(NOTHING_NEW)
                return item.adapter

    run_id = find_run(connections, dataset, now).run_id

    def ended() -> tuple[training_pb2.Run | None, str]:
        run = unary("training", connections.training.GetRun, training_pb2.GetRunRequest(run_id=run_id)).run
        is_over = run.state == training_pb2.RUN_STATE_SUCCEEDED or run.state in FAILED
        return run if is_over else None, describe(run)

    run = wait_for(ended, now)
    if run.state in FAILED:
        raise FailedPrecondition(Reason(run.reason or Reason.RUN_FAILED), run.message or "The run made no adapter.")

    def known() -> tuple[registry_pb2.CatalogueAdapter | None, str]:
        return find_adapter(connections, run.adapter_digest), "waiting for the adapter to appear in the registry"

    adapter = wait_for(known, now).adapter
    now(
        f"{adapter.steps} steps in {adapter.seconds:.0f} s, loss {adapter.first_loss:.2f} to {adapter.last_loss:.2f}, "
        f"{adapter.tokens_per_second:.0f} tokens/s"
    )
    return adapter


def evaluate(connections: Connections, adapter: models_pb2.AdapterTrained, now: Tell) -> registry_pb2.CatalogueAdapter:
    """Wait until the gate has decided on the adapter. Raises FailedPrecondition if the adapter cannot be measured."""

    def decided() -> tuple[registry_pb2.CatalogueAdapter | None, str]:
        item = find_adapter(connections, adapter.digest)
        if item and item.HasField("evaluation") and item.decision in DECIDED:
            return item, ""
        return None, describe_evaluation(connections, adapter.digest)

    item = wait_for(decided, now)
    is_met = item.decision == registry_pb2.DECISION_PASSED
    now(
        f"{item.evaluation.rows} held-out rows; the gate's verdict is {decision_of(item.decision)}"
        f"{'' if is_met else ', nothing is promoted'}"
    )
    return item


def wait_until_served(
    connections: Connections, client: TailorClient, adapter: models_pb2.AdapterTrained, now: Tell
) -> None:
    """Wait until inference answers with the adapter. Raises FailedPrecondition if the registry serves another one."""

    def served() -> tuple[bool | None, str]:
        digests = {item.name: item.provenance.adapter_digest for item in client.specialists()}
        if digests.get(adapter.specialist) == adapter.digest:
            return True, ""
        item = find_adapter(connections, adapter.digest)
        if item and not item.serving:
            text = f"{short(adapter.digest)} met the gate, but another adapter serves; see `tailor promote`."
            raise FailedPrecondition(Reason.NOT_SERVING, text)
        return None, "inference is loading the adapter"

    wait_for(served, now)
    now("the gate is met, and the adapter serves")


def ask_both(
    client: TailorClient, definition: models_pb2.SpecialistChanged, questions: Sequence[str], now: Tell
) -> list[Figures]:
    """Ask the base and the specialist each question, with the specialist's sampling; `draft_id` is that of the specialist's answer."""
    sampling = wire.to_sampling(definition.sampling)
    options = {
        BASE: Options(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            repetition_penalty=sampling.repetition_penalty,
            max_tokens=sampling.max_tokens,
        ),
        definition.name: Options(),
    }
    answers = []
    for number, question in enumerate(questions, start=1):
        now(f"question {number} of {len(questions)}")
        with ThreadPoolExecutor(2) as pool:  # at the same time, so that the server generates both in one batch
            calls = [pool.submit(ask, client, model, question, options[model], now) for model in options]
        base, tuned = (call.result() for call in calls)
        answers.append({"question": question, "base": base.text, "tuned": tuned.text, "draft_id": tuned.draft_id})
    now(f"{len(questions)} questions answered by both")
    return answers


def ask(client: TailorClient, model: str, question: str, options: Options, now: Tell) -> Answer:
    """One answer."""
    return wait_out_errors(lambda: client.generate(model, question, **options), now)


# What the steps look up.


def find_run(connections: Connections, dataset: models_pb2.DatasetBuilt, now: Tell) -> training_pb2.Run:
    """The dataset's run. Creates it if training has not started one within a minute."""

    def listed() -> tuple[training_pb2.Run | None, str]:
        request = training_pb2.ListRunsRequest(specialist=dataset.specialist)
        runs: Iterator[training_pb2.Run] = pages("training", connections.training.ListRuns, request, "runs")
        return next((run for run in runs if run.dataset_digest == dataset.digest), None), "waiting for the run to start"

    try:
        return wait_for(listed, now, stalled_seconds=TRAINING_STARTS_SECONDS)
    except DeadlineExceeded:
        request = training_pb2.CreateRunRequest(
            specialist=dataset.specialist,
            dataset_digest=dataset.digest,
            base=dataset.base,
            recipe=dataset.recipe,
            request_id=new_id("req"),
        )
        return wait_out_errors(lambda: unary("training", connections.training.CreateRun, request).run, now)


def find_adapter(connections: Connections, digest: str) -> registry_pb2.CatalogueAdapter | None:
    """The adapter as the registry knows it, or None."""
    try:
        request = registry_pb2.GetAdapterRequest(digest=digest)
        return unary("registry", connections.registry.GetAdapter, request).adapter
    except NotFound:
        return None


def describe_evaluation(connections: Connections, digest: str) -> str:
    """How far the evaluation is, in a few words. Raises FailedPrecondition if it failed."""
    request = evaluation_pb2.GetEvaluationRequest(adapter_digest=digest)
    try:
        answer = unary("evaluation", connections.evaluation.GetEvaluation, request)
    except NotFound:
        return "waiting for the evaluation to begin"
    if answer.state == evaluation_pb2.EVALUATION_STATE_FAILED:
        reason = Reason(answer.reason or Reason.EVALUATION_FAILED)
        raise FailedPrecondition(reason, "The adapter could not be measured; see `tailor adapters`.")
    if answer.state == evaluation_pb2.EVALUATION_STATE_SUCCEEDED:
        return "measured; waiting for the gate"
    return f"{answer.rows_done} of {answer.rows_total} rows measured"


def read_questions(path: Path) -> list[str]:
    """Read the questions from a JSON list. Raises InvalidArgument if the file does not hold one."""
    try:
        questions = [str(entry["question"]) for entry in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, KeyError, TypeError):
        questions = []
    if not questions:
        text = f"{path} must be a JSON list of objects, each with a `question`."
        raise InvalidArgument(Reason.INVALID_QUESTIONS, text)
    return questions


# The figures that `demo.json` holds.


def count_outcomes(events: Iterable[Any], published: int) -> Figures:
    """Count anonymised documents, rejections by reason, and personal values by type, the most frequent first."""
    anonymized, rejected, findings = 0, Counter[str](), Counter[str]()
    for event in events:
        if isinstance(event, documents_pb2.DocumentAnonymized):
            anonymized += 1
            findings.update(dict(event.findings))
        else:
            rejected[documents_pb2.RejectionReason.Name(event.reason).removeprefix("REJECTION_REASON_")] += 1
    return {
        "documents_published": published,
        "documents_anonymized": anonymized,
        "documents_rejected": dict(rejected.most_common()),
        "personal_data_found": dict(findings.most_common()),
    }


def describe_outcomes(figures: Figures) -> str:
    """The documents' figures in one line."""
    text = f"{figures['documents_published']} published, {figures['documents_anonymized']} anonymised"
    for label, name in (("rejected", "documents_rejected"), ("found", "personal_data_found")):
        counts = ", ".join(f"{key} {count}" for key, count in figures[name].items())
        text += f"; {label} {counts}" if counts else ""
    return text


def model_figures(dataset: models_pb2.DatasetBuilt, item: registry_pb2.CatalogueAdapter) -> Figures:
    """The dataset, the run (losses in nats per token), and the evaluation with the gate's verdict."""
    adapter = item.adapter
    measured = ("seconds", "steps", "first_loss", "last_loss", "tokens_per_second")
    return {
        "dataset": {"digest": dataset.digest, "rows": dataset.train_rows, "held_out": dataset.held_out_rows},
        "run": {"id": adapter.run_id} | {name: getattr(adapter, name) for name in measured},
        "adapter": {"digest": adapter.digest},
        "evaluation": to_dict(item.evaluation),
        "verdict": {"decision": decision_of(item.decision), "reasons": list(item.reasons), "advice": item.advice},
        "promoted": item.decision == registry_pb2.DECISION_PASSED,
        "answers": [],
    }


def save(path: Path, figures: Figures) -> None:
    """Write the figures as JSON, atomically."""
    partial = path.with_name(f".{path.name}.part")
    partial.write_text(json.dumps(figures, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)
