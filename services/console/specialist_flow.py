"""The flow of one specialist: how far its documents, rows, runs, evaluation and serving are, where it waits and why."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from services.console.clients import Services
from services.console.domain import Page, Permission, Visitor
from services.console.handlers import ServiceFailure, call, list_adapters, list_datasets
from services.console.operations import get_specialist
from services.console.reads import read_page
from services.console.rules import ENDED, sort_queue, word
from tailor.api.events.v1 import models_pb2
from tailor.api.registry.v1.registry_pb2 import (
    CatalogueAdapter,
    CatalogueDocument,
    GetSpecialistResponse,
    ListDocumentsRequest,
)
from tailor.api.synthetic.v1.synthetic_pb2 import GetBuildStateRequest, GetBuildStateResponse
from tailor.api.training.v1 import training_pb2

COUNTED_DOCUMENTS = 1_000


@dataclass(frozen=True)
class FlowStep:
    """A step: its count or state in large type, what it waits for (empty if for nothing), and links as (address, text).

    `state` is `done`, `busy`, `idle` or `bad`.
    """

    name: str
    value: str
    note: str = ""
    wait: str = ""
    state: str = "done"
    links: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class SpecialistFlow:
    """A specialist with the steps of its flow in order."""

    entry: GetSpecialistResponse
    steps: tuple[FlowStep, ...]
    failures: tuple[ServiceFailure, ...] = ()


@dataclass(frozen=True)
class _Facts:
    entry: GetSpecialistResponse
    documents: Page[CatalogueDocument] = field(default_factory=Page)
    builds: GetBuildStateResponse = field(default_factory=GetBuildStateResponse)
    datasets: tuple[models_pb2.DatasetBuilt, ...] = ()
    runs: tuple[training_pb2.Run, ...] = ()
    queue: tuple[training_pb2.Run, ...] = ()
    adapters: tuple[CatalogueAdapter, ...] = ()


def load_flow(services: Services, visitor: Visitor, name: str) -> SpecialistFlow:
    """The flow of a specialist; for visitors who may not see runs, only what serves and what experts judged.

    Raises NotFound if it is unknown or not visible to the visitor.
    """
    entry = get_specialist(services, visitor, name)
    if not visitor.may(Permission.RUNS):
        facts = _Facts(entry)
        return SpecialistFlow(entry, (_show_serving(facts, visitor), _show_judgements(facts, visitor)))
    first = ListDocumentsRequest(specialist=name, page_size=COUNTED_DOCUMENTS)
    state = GetBuildStateRequest(specialist=name)
    with ThreadPoolExecutor(max_workers=6, thread_name_prefix="flow") as pool:
        documents = pool.submit(
            call,
            "registry",
            lambda: read_page(services.registry.ListDocuments, first),
            Page[CatalogueDocument](),
        )
        builds = pool.submit(
            call, "synthetic", partial(services.synthetic.GetBuildState, state), GetBuildStateResponse()
        )
        datasets = pool.submit(list_datasets, services, visitor, name)
        runs = pool.submit(
            call,
            "training",
            lambda: read_page(services.training.ListRuns, training_pb2.ListRunsRequest(specialist=name)),
            Page[training_pb2.Run](),
        )
        every = pool.submit(
            call,
            "training",
            lambda: read_page(services.training.ListRuns, training_pb2.ListRunsRequest()),
            Page[training_pb2.Run](),
        )
        adapters = pool.submit(list_adapters, services, visitor, name)
    failed = (
        *documents.result().failures,
        *builds.result().failures,
        *datasets.result().failures,
        *runs.result().failures,
        *every.result().failures,
        *adapters.result().failures,
    )
    facts = _Facts(
        entry,
        documents.result().value,
        builds.result().value,
        datasets.result().value.items,
        runs.result().value.items,
        sort_queue(every.result().value.items),
        adapters.result().value.items,
    )
    failures = tuple(dict.fromkeys(failed))
    silent = {failure.service for failure in failures}
    steps = [_mark_unknown(step, silent) for step in _list_steps(facts, visitor)]
    return SpecialistFlow(entry, tuple(steps), failures)


# The services that a step's figures come from.
SOURCES = {
    "documents": ("registry", "synthetic"),
    "dataset": ("registry",),
    "run": ("training",),
    "evaluation and gate": ("registry",),
    "judgements": ("synthetic",),
}


def _mark_unknown(step: FlowStep, silent: set[str]) -> FlowStep:
    missing = [name for name in SOURCES.get(step.name, ()) if name in silent]
    if not missing:
        return step
    return FlowStep(step.name, "–", f"{missing[0]} does not answer", state="idle", links=step.links)


def _list_steps(facts: _Facts, visitor: Visitor) -> tuple[FlowStep, ...]:
    return (
        _show_documents(facts, visitor),
        _show_dataset(facts),
        _show_run(facts),
        _show_evaluation(facts),
        _show_serving(facts, visitor),
        _show_judgements(facts, visitor),
    )


def _wait_of(facts: _Facts, kind: "models_pb2.DatasetKind.ValueType") -> str:
    return next((state.sentence for state in facts.builds.states if state.kind == kind), "")


def _show_documents(facts: _Facts, visitor: Visitor) -> FlowStep:
    name, count = facts.entry.specialist.name, len(facts.documents.items)
    shown = f"{count:,}" + (" or more" if facts.documents.next_token else "")
    links = (
        (f"/documents?specialist={name}", "documents"),
        (f"/audit?specialist={name}", "audit"),
    )
    wait = _wait_of(facts, models_pb2.DATASET_KIND_SFT)
    note = "that its selection admits" if count else "none that its selection admits"
    return FlowStep(
        "documents",
        shown,
        note,
        wait,
        "done" if count else "idle",
        links if visitor.may(Permission.AUDIT) else links[:1],
    )


def _show_dataset(facts: _Facts) -> FlowStep:
    name = facts.entry.specialist.name
    newest = next((item for item in facts.datasets if item.kind == models_pb2.DATASET_KIND_SFT), None)
    ranked = next((item for item in facts.datasets if item.kind == models_pb2.DATASET_KIND_PREFERENCE), None)
    links = [(f"/datasets?specialist={name}", "all datasets")]
    if ranked:
        links.insert(0, (f"/datasets/{ranked.digest}", f"{ranked.train_rows + ranked.held_out_rows:,} ranked pairs"))
    if newest is None:
        return FlowStep("dataset", "none yet", "", _wait_of(facts, models_pb2.DATASET_KIND_SFT), "idle", tuple(links))
    links.insert(0, (f"/datasets/{newest.digest}", "newest dataset"))
    links.insert(1, (f"/datasets/{newest.digest}#rows", "its rows"))
    rows = newest.train_rows + newest.held_out_rows
    note = f"{newest.held_out_rows:,} held out, from {newest.documents:,} documents"
    waits = not any(newest.digest in _datasets_of(run) for run in facts.runs)
    wait = "No run has learned from the newest dataset yet." if waits else ""
    return FlowStep("dataset", f"{rows:,} rows", note, wait, "busy" if waits else "done", tuple(links))


def _datasets_of(run: training_pb2.Run) -> tuple[str, ...]:
    return (run.dataset_digest, run.preference_dataset_digest)


def _show_run(facts: _Facts) -> FlowStep:
    name = facts.entry.specialist.name
    links: tuple[tuple[str, str], ...] = ((f"/runs?specialist={name}", "all runs"),)
    if not facts.runs:
        wait = "Waits for a dataset." if not facts.datasets else "No run was queued for its datasets."
        return FlowStep("run", "none yet", "", wait, "idle", links)
    newest = next((run for run in facts.runs if run.state not in ENDED), facts.runs[0])
    links = ((f"/runs/{newest.run_id}", "newest run"), *links)
    state = word(newest, "state")
    tone = {"failed": "bad", "succeeded": "done", "cancelled": "idle"}.get(state, "busy")
    progress = newest.progress
    note = f"step {progress.step:,} of {progress.total_steps:,}" if progress.total_steps else ""
    if len(newest.stages) > 1:
        note = f"stage {newest.stage + 1} of {len(newest.stages)} ({newest.stages[newest.stage].method}) {note}".strip()
    return FlowStep("run", state, note, _wait_of_run(facts, newest), tone, links)


def _wait_of_run(facts: _Facts, run: training_pb2.Run) -> str:
    if run.state == training_pb2.RUN_STATE_QUEUED:
        ids = [item.run_id for item in facts.queue]
        place = f"Place {ids.index(run.run_id) + 1} of {len(ids)} in the queue. " if run.run_id in ids else ""
        return f"{place}{run.message}".strip() or "Waits for its place."
    return run.message if run.state != training_pb2.RUN_STATE_SUCCEEDED else ""


# States of an adapter in which something is to be done, and what.
WAITING = {
    "evaluating": "Waits for its evaluation.",
    "waiting for approval": "Waits for an operator's approval.",
    "undecided": "The gate could not decide; more held-out rows, or an operator's decision, are needed.",
    "refused": "The gate refused it; the reasons are on its page.",
    "passed": "Passed the gate, but does not serve; an operator can promote it.",
}
BAD = ("refused", "declined", "withdrawn", "retired")


def _show_evaluation(facts: _Facts) -> FlowStep:
    name = facts.entry.specialist.name
    links: tuple[tuple[str, str], ...] = (
        (f"/specialists/{name}/leaderboard", "leaderboard"),
        (f"/adapters?specialist={name}", "all adapters"),
    )
    policies = [item for item in facts.adapters if item.adapter.kind == models_pb2.ADAPTER_KIND_POLICY]
    # Of a run with several stages, only the last adapter is a candidate.
    newest = next((item for item in policies if word(item, "state") != "intermediate"), None)
    if newest is None:
        return FlowStep("evaluation and gate", "none yet", "", "Waits for an adapter.", "idle", links)
    state = word(newest, "state")
    links = ((f"/evaluations/{newest.adapter.digest}", "evaluation"), *links)
    if state == "waiting for approval":
        links = ((f"/approvals?specialist={name}", "approve or decline"), *links)
    tone = "bad" if state in BAD else "busy" if state in WAITING else "done"
    note = f"{newest.evaluation.rows:,} held-out rows" if newest.HasField("evaluation") else ""
    reason = f" {newest.reasons[0]}" if newest.reasons and state in ("refused", "undecided") else ""
    return FlowStep("evaluation and gate", state, note, f"{WAITING.get(state, '')}{reason}", tone, links)


def _show_serving(facts: _Facts, visitor: Visitor) -> FlowStep:
    serving, name = facts.entry.serving, facts.entry.specialist.name
    decision = serving.decision
    links: tuple[tuple[str, str], ...] = ((f"/ask?specialist={name}", "ask it"),) if visitor.may(Permission.ASK) else ()
    if decision.adapter_digest and visitor.may(Permission.EVALUATIONS):
        links = ((f"/evaluations/{decision.adapter_digest}", "what serves"), *links)
    if not decision.generation or decision.ended:
        return FlowStep(
            "serving", "nothing", "nobody gets an answer", "Waits for an adapter that passes the gate.", "idle", links
        )
    value = decision.adapter_digest[:10] or "the base"
    ready = sum(replica.serving for replica in serving.rollout)
    wait = "" if serving.finished else f"{ready} of {len(serving.rollout)} replicas serve it so far."
    return FlowStep(
        "serving", value, f"generation {decision.generation}", wait, "done" if serving.finished else "busy", links
    )


def _show_judgements(facts: _Facts, visitor: Visitor) -> FlowStep:
    entry = facts.entry
    name = entry.specialist.name
    links: list[tuple[str, str]] = []
    # The judging page knows only specialists that store their drafts' texts.
    if visitor.may(Permission.JUDGE) and entry.specialist.keep_drafts:
        links.append((f"/judge?specialist={name}", "judge drafts"))
    if visitor.may(Permission.MANAGE_SPECIALISTS):
        links.append((f"/specialists/{name}/guidelines", "what comments ask for"))
    if not entry.specialist.keep_drafts:
        wait = "Draft texts are not stored (keep_drafts), so rankings do not become rows."
        return FlowStep("judgements", "not learned from", "", wait, "idle", tuple(links))
    wait = _wait_of(facts, models_pb2.DATASET_KIND_PREFERENCE)
    if not entry.HasField("round"):
        return FlowStep(
            "judgements", "no round", "its pipeline does not learn from rankings", wait, "idle", tuple(links)
        )
    missing = entry.round.missing_prompts
    note = f"of {entry.round.needed_prompts:,} ranked prompts for the next round"
    text = f"{entry.round.sentence} {wait}".strip() if missing else wait
    return FlowStep("judgements", f"{entry.round.prompts:,}", note, text, "busy" if missing else "done", tuple(links))
