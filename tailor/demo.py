"""The whole life of a specialist, from documents to answers, in one file. Begin reading here.

`make demo` runs it against the embedded stack, in this order:

    start the stack > fetch a base > publish documents > build a dataset > train > evaluate > ask

Nothing in this file is privileged. Documents go to a Kafka topic, facts come back on Kafka topics, and everything else is a gRPC call
that any program with an API key can make.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tailor import codec, wire
from tailor.api.evaluation.v1 import evaluation_pb2
from tailor.api.events.v1 import models_pb2
from tailor.api.registry.v1 import registry_pb2
from tailor.api.synthetic.v1 import synthetic_pb2
from tailor.api.training.v1 import training_pb2
from tailor.cli.build import build_dataset, describe_skipped
from tailor.cli.calls import list_adapters, pages
from tailor.cli.connections import Connections, Endpoints
from tailor.cli.datasets import describe_figures
from tailor.cli.definitions import read_definition
from tailor.cli.demo_figures import Figures, count_outcomes, describe_outcomes, list_news, model_figures, save
from tailor.cli.events import decode
from tailor.cli.figures import decision_of
from tailor.cli.house_examples import choose_examples, list_train_rows, to_chat
from tailor.cli.next_commands import to_command
from tailor.cli.output import short
from tailor.cli.progress import ProgressReporter, Report, wait_for, wait_out_errors
from tailor.cli.publish import publish_all
from tailor.cli.published_files import PublishedFiles
from tailor.cli.reader import Start, TopicReader
from tailor.cli.run_views import FAILED, describe
from tailor.cli.specialists import define
from tailor.cli.submissions import Description, FileSubmission, collect
from tailor.client import Answer, Message, TailorClient
from tailor.client.requests import Options
from tailor.errors import (
    AlreadyExists,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Reason,
)
from tailor.events.envelope import new_id
from tailor.local import stack
from tailor.values import EvaluationPolicy, SamplingDefaults

STEPS = ("up", "base", "documents", "dataset", "training", "evaluation", "asking")
OUTCOMES = ("document.anonymized.v1", "document.rejected.v1")
BASE, FEW_SHOT = "base", "few_shot"
DECIDED = (registry_pb2.DECISION_PASSED, registry_pb2.DECISION_REFUSED, registry_pb2.DECISION_UNDECIDED)
NOTHING_NEW = "nothing is new: the corpus is unchanged, no run was started"
# A first start fetches and converts the base.
UP_SECONDS = 600.0
QUIET_MS = 2000
AGREE_SECONDS = 90.0
TRAINING_STARTS_SECONDS = 60.0


@dataclass(frozen=True)
class Sample:
    """A specialist's definition and its file, the documents that it learns from, and questions to ask at the end."""

    file: Path
    definition: models_pb2.SpecialistChanged
    documents: list[FileSubmission]
    questions: list[str]


def read_sample(folder: Path) -> Sample:
    """Read the sample. Raises InvalidArgument if a file of it is invalid."""
    file = folder / "specialist.toml"
    return Sample(
        file=file,
        definition=read_definition(file),
        documents=collect([folder / "documents"], Description()),
        questions=read_questions(folder / "questions.json"),
    )


def run_demo(state_dir: Path, sample: Sample, progress: ProgressReporter) -> Figures:
    """Run every step and return the figures, which are also written to `demo.json` in the state directory. Blocks for minutes.

    Publishes and trains nothing that an earlier demo in this directory did. If the gate refuses the adapter or cannot decide, that is a
    result: `promoted` is False and no questions are asked.
    """
    definition = sample.definition
    (state_dir / "demo.json").unlink(missing_ok=True)
    now, started = progress.now, wire.now()

    with closing(Connections(Endpoints(state_dir))) as connections:
        with progress.step("up", "start the broker, the stores and the services on this machine"):
            start_stack(state_dir, now)
        with connections.client() as client:
            with progress.step("base", "fetch the model that adapters are trained on"):
                wait_for_base(connections, client, definition.base, now)
            with progress.step("documents", "publish the sample and follow every document through the barrier"):
                is_new = define_specialist(connections, state_dir, sample, now)
                figures = publish_documents(
                    connections, PublishedFiles(state_dir / "published.json"), sample, is_new, now
                )
            with progress.step("dataset", "turn the anonymised documents into rows"):
                built = build(connections, definition.name, now)
            with progress.step("training", "train an adapter of the base on these rows"):
                adapter = train(connections, built, now)
                figures["new"] = list_news(figures, adapter, started, is_built=built.created)
            with progress.step("evaluation", "measure the adapter on held-out rows; promote it if it meets the gate"):
                item = evaluate(connections, adapter, now)
                figures |= model_figures(built.dataset, item, definition)
                if figures["promoted"]:
                    wait_until_served(connections, client, adapter, now)
            if figures["promoted"]:
                with progress.step(
                    "asking", "ask the base, the base with house examples, and the specialist the same questions"
                ):
                    rows = list_train_rows(connections.synthetic, built.dataset.digest)
                    figures["answers"] = ask_all(client, definition, rows, sample.questions, now)
    figures["seconds"] = dict.fromkeys(STEPS, 0.0) | progress.seconds
    save(state_dir / "demo.json", figures)
    return figures


# The steps, in their order. Each calls `now` to say what it is doing.


def start_stack(state_dir: Path, now: Report) -> None:
    """Start the embedded stack and wait until every part is healthy."""
    stack.up(state_dir).wait_ready(UP_SECONDS, lambda snapshot: now(f"waiting for {snapshot.describe_waiting()}"))
    now("every part is healthy")


def wait_for_base(connections: Connections, client: TailorClient, name: str, now: Report) -> None:
    """Wait until training has stored the base and inference serves it."""

    def check() -> tuple[bool | None, str]:
        bases = connections.training.ListBases(training_pb2.ListBasesRequest()).bases
        return any(base.name == name for base in bases) or None, f"fetching {name}"

    wait_for(check, now)
    wait_out_errors(client.specialists, now)
    now(f"{name} is stored and answers")


def define_specialist(connections: Connections, state_dir: Path, sample: Sample, now: Report) -> bool:
    """Define the specialist. Returns whether it is new. Raises AlreadyExists if it has another definition than the sample's."""
    try:
        return wait_out_errors(lambda: define(connections.registry, sample.definition), now).created
    except AlreadyExists:
        raise AlreadyExists(
            Reason.SPECIALIST_EXISTS,
            f"{sample.definition.name} exists with another definition than {sample.file}. Start the stack with "
            f"`{to_command(state_dir, 'up')}`, apply the file with "
            f"`{to_command(state_dir, 'specialist', 'update', str(sample.file))}`, and repeat the demo.",
        ) from None


def publish_documents(
    connections: Connections, known: PublishedFiles, sample: Sample, is_new: bool, now: Report
) -> Figures:
    """Publish documents that are new or changed, and read events until each of them is anonymised or rejected."""
    submissions = known.choose_new(sample.documents)
    unchanged = len(sample.documents) - len(submissions)
    if not submissions:
        figures = count_outcomes((), 0, unchanged)
        now(describe_outcomes(figures))
        return figures
    with wait_out_errors(lambda: TopicReader(connections.kafka_reader(), OUTCOMES, Start.END), now) as reader:
        while not is_new and wait_out_errors(lambda: reader.poll(QUIET_MS), now):
            now("waiting for documents that were published earlier")
        since = wire.now()
        published = publish_all(connections, submissions, lambda count: now(f"{count} published")).total
        outcomes: dict[str, Any] = {}  # the last event of each submission, because events come at least once

        def all_accounted() -> tuple[Figures | None, str]:
            for record in reader.poll():
                event = decode(reader.topic(record), record.value)
                outcomes[event.submission_id] = event
            figures = count_outcomes(outcomes.values(), published, unchanged)
            return figures if len(outcomes) >= published else None, describe_outcomes(figures)

        figures = wait_for(all_accounted, now)

    def registry_agrees() -> tuple[bool | None, str]:
        flow = connections.registry.GetFlow(registry_pb2.GetFlowRequest(since=since))
        counts = {"documents_anonymized": flow.anonymized, "documents_rejected": dict(flow.rejected)}
        text = f"the registry counts {flow.anonymized} anonymised, {sum(flow.rejected.values())} rejected"
        return figures == figures | counts or None, text

    wait_for(registry_agrees, now, stalled_seconds=AGREE_SECONDS)
    known.add(submissions)
    now(describe_outcomes(figures))
    return figures


def build(connections: Connections, specialist: str, now: Report) -> synthetic_pb2.BuildDatasetResponse:
    """Build the specialist's dataset, or get the existing one if no document is new."""
    request_id = new_id("req")
    answer = wait_out_errors(lambda: build_dataset(connections.synthetic, specialist, request_id), now)
    dataset = answer.dataset
    now(
        f"{dataset.train_rows} rows, {dataset.held_out_rows} held out; {describe_figures(dataset)} "
        f"{answer.near_duplicates} near-duplicates left out"
    )
    now(f"left out, mostly by the sample's own limits: {describe_skipped(answer.skipped)}")
    return answer


def train(
    connections: Connections, built: synthetic_pb2.BuildDatasetResponse, now: Report
) -> models_pb2.AdapterTrained:
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
        run = connections.training.GetRun(training_pb2.GetRunRequest(run_id=run_id)).run
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


def evaluate(
    connections: Connections, adapter: models_pb2.AdapterTrained, now: Report
) -> registry_pb2.CatalogueAdapter:
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
    connections: Connections, client: TailorClient, adapter: models_pb2.AdapterTrained, now: Report
) -> None:
    """Wait until inference answers with the adapter. Raises FailedPrecondition if the registry serves another one."""

    def served() -> tuple[bool | None, str]:
        digests = {item.name: item.provenance.adapter_digest for item in client.specialists()}
        if digests.get(adapter.specialist) == adapter.digest:
            return True, ""
        item = find_adapter(connections, adapter.digest)
        if item and not item.serving:
            text = f"{short(adapter.digest)} met the gate, but another adapter serves; `tailor adapter list` says why."
            raise FailedPrecondition(Reason.NOT_SERVING, text)
        return None, "inference is loading the adapter"

    wait_for(served, now)
    now("the gate is met, and the adapter serves")


def ask_all(
    client: TailorClient,
    definition: models_pb2.SpecialistChanged,
    rows: Iterable[synthetic_pb2.Row],
    questions: Sequence[str],
    now: Report,
) -> list[Figures]:
    """Ask the base, the base with examples and the specialist each question, with the specialist's sampling and system prompt.

    Examples are the most similar of `rows`. `draft_id` is that of the specialist's answer.
    """
    examples = choose_examples(rows, questions, codec.decode(EvaluationPolicy, definition.evaluation).few_shot)
    answers = []
    for number, (question, similar) in enumerate(zip(questions, examples, strict=True), start=1):
        now(f"question {number} of {len(questions)}")
        with ThreadPoolExecutor(3) as pool:  # at the same time, so that the server generates them in one batch
            base = pool.submit(ask_base, client, definition, question, (), now)
            few_shot = pool.submit(ask_base, client, definition, question, similar, now) if similar else base
            tuned = pool.submit(ask, client, definition.name, [Message("user", question)], {}, now)
        texts = {BASE: base.result().text, FEW_SHOT: few_shot.result().text, "tuned": tuned.result().text}
        row_ids = [row.row_id for row in similar]
        answers.append({"question": question, **texts, "examples": row_ids, "draft_id": tuned.result().draft_id})
    now(f"{len(questions)} questions answered by all three")
    return answers


def ask_base(
    client: TailorClient,
    definition: models_pb2.SpecialistChanged,
    question: str,
    examples: Sequence[synthetic_pb2.Row],
    now: Report,
) -> Answer:
    """The base's answer with examples in its prompt, the most similar first, or with as many of them as its context holds."""
    sampling = codec.decode(SamplingDefaults, definition.sampling)
    options = Options(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        repetition_penalty=sampling.repetition_penalty,
        max_tokens=sampling.max_tokens,
    )
    for count in range(len(examples), 0, -1):
        try:
            return ask(client, BASE, to_chat(definition, question, examples[:count]), options, now)
        except InvalidArgument as error:
            if error.reason != Reason.PROMPT_TOO_LONG:
                raise
    return ask(client, BASE, to_chat(definition, question), options, now)


def ask(client: TailorClient, model: str, chat: Sequence[Message], options: Options, now: Report) -> Answer:
    """One answer."""
    asked: Options = {**options, "messages": chat}
    return wait_out_errors(lambda: client.generate(model, **asked), now)


# What the steps look up.


def find_run(connections: Connections, dataset: models_pb2.DatasetBuilt, now: Report) -> training_pb2.Run:
    """The dataset's run. Creates it if training has not started one within a minute."""

    def listed() -> tuple[training_pb2.Run | None, str]:
        request = training_pb2.ListRunsRequest(specialist=dataset.specialist)
        runs: Iterator[training_pb2.Run] = pages(connections.training.ListRuns, request)
        return next((run for run in runs if run.dataset_digest == dataset.digest), None), "waiting for the run to start"

    try:
        return wait_for(listed, now, stalled_seconds=TRAINING_STARTS_SECONDS)
    except DeadlineExceeded:
        request = training_pb2.CreateRunRequest(
            specialist=dataset.specialist,
            dataset_digest=dataset.digest,
            base=dataset.base,
            recipe=dataset.pipeline[0].recipe,
            request_id=new_id("req"),
        )
        return wait_out_errors(lambda: connections.training.CreateRun(request).run, now)


def find_adapter(connections: Connections, digest: str) -> registry_pb2.CatalogueAdapter | None:
    """The adapter as the registry knows it, or None."""
    try:
        return connections.registry.GetAdapter(registry_pb2.GetAdapterRequest(digest=digest)).adapter
    except NotFound:
        return None


def describe_evaluation(connections: Connections, digest: str) -> str:
    """How far the evaluation is, in a few words. Raises FailedPrecondition if it failed."""
    request = evaluation_pb2.GetEvaluationRequest(adapter_digest=digest)
    try:
        answer = connections.evaluation.GetEvaluation(request)
    except NotFound:
        return "waiting for the evaluation to begin"
    if answer.state == evaluation_pb2.EVALUATION_STATE_FAILED:
        reason = Reason(answer.reason or Reason.EVALUATION_FAILED)
        raise FailedPrecondition(reason, "The adapter could not be measured; see `tailor adapter list`.")
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
