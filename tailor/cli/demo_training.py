"""The demo's dataset, run, evaluation and promotion."""

from collections.abc import Iterator

from tailor.api.evaluation.v1 import evaluation_pb2
from tailor.api.events.v1 import models_pb2
from tailor.api.registry.v1 import registry_pb2
from tailor.api.synthetic.v1 import synthetic_pb2
from tailor.api.training.v1 import training_pb2
from tailor.cli.calls import list_adapters, pages, unary
from tailor.cli.connections import Connections
from tailor.cli.datasets import build_dataset
from tailor.cli.demo_wait import Tell, follow, patiently, until
from tailor.cli.output import short
from tailor.cli.run_views import describe
from tailor.cli.runs import FAILED, reports
from tailor.client import TailorClient
from tailor.errors import DeadlineExceeded, FailedPrecondition, NotFound, Reason
from tailor.events.envelope import new_id

# How long training may take to hear of a dataset before it is told.
HEAR_SECONDS = 60.0
ENDED = (training_pb2.RUN_STATE_SUCCEEDED, *FAILED)
DECIDED = (registry_pb2.DECISION_PASSED, registry_pb2.DECISION_REFUSED)


def build(connections: Connections, specialist: str, tell: Tell) -> synthetic_pb2.BuildDatasetResponse:
    """The specialist's dataset."""
    tell("turning documents into rows")
    request_id = new_id("req")
    answer = patiently(lambda: build_dataset(connections.synthetic, specialist, request_id), tell)
    dataset = answer.dataset
    tell(
        f"{dataset.train_rows} rows, {dataset.held_out_rows} held out, of {len(dataset.document_ids)} documents; "
        f"{answer.near_duplicates} near-duplicates left out"
    )
    return answer


def adapter_of_dataset(
    connections: Connections, dataset: models_pb2.DatasetBuilt, tell: Tell
) -> registry_pb2.CatalogueAdapter | None:
    """The newest adapter that was trained on the dataset, if there is one."""
    return patiently(lambda: _find(connections, dataset.specialist, "dataset_digest", dataset.digest), tell)


def train(connections: Connections, dataset: models_pb2.DatasetBuilt, tell: Tell) -> registry_pb2.CatalogueAdapter:
    """Follow the dataset's run to its end; the adapter as the registry knows it. FailedPrecondition where the run fails."""
    run_id = _run_of(connections, dataset, tell).run_id
    run = follow(
        lambda: reports(connections.training, run_id),
        lambda seen: seen.state in ENDED,
        lambda seen: tell(describe(seen)),
        tell,
    )
    if run.state in FAILED:
        raise FailedPrecondition(
            Reason(run.reason or Reason.RUN_FAILED), run.message or "The run ended without an adapter."
        )

    def known() -> tuple[registry_pb2.CatalogueAdapter | None, str]:
        found = _find(connections, dataset.specialist, "digest", run.adapter_digest)
        return found, "the registry has not heard of the adapter yet"

    item = until(known, tell)
    made = item.adapter
    tell(
        f"{made.steps} steps in {made.seconds:.0f} s, loss {made.first_loss:.2f} to {made.last_loss:.2f}, "
        f"{made.tokens_per_second:.0f} tokens/s"
    )
    return item


def evaluate(connections: Connections, adapter: models_pb2.AdapterTrained, tell: Tell) -> registry_pb2.CatalogueAdapter:
    """Follow the evaluation until the gate has decided. FailedPrecondition where it cannot be made."""

    def decided() -> tuple[registry_pb2.CatalogueAdapter | None, str]:
        item = _find(connections, adapter.specialist, "digest", adapter.digest)
        if item and item.decision in DECIDED and item.HasField("evaluation"):
            return item, ""
        return None, _measured(connections, adapter.digest)

    item = until(decided, tell)
    passed = item.decision == registry_pb2.DECISION_PASSED
    tell(f"{item.evaluation.rows} held-out rows; the gate is {'met' if passed else 'not met'}")
    return item


def wait_until_served(
    connections: Connections, client: TailorClient, adapter: models_pb2.AdapterTrained, tell: Tell
) -> None:
    """Wait until inference answers with the adapter; FailedPrecondition where the registry lets another one serve."""

    def served() -> tuple[bool | None, str]:
        names = {item.name: item.provenance for item in client.specialists()}
        found = names.get(adapter.specialist)
        if found and found.adapter_digest == adapter.digest:
            return True, ""
        item = _find(connections, adapter.specialist, "digest", adapter.digest)
        if item and not item.serving:
            raise FailedPrecondition(
                Reason.NOT_SERVING,
                f"{short(adapter.digest)} passed the gate, but another adapter serves; see `tailor promote`.",
            )
        return None, "inference loads the adapter"

    until(served, tell)


def _find(connections: Connections, specialist: str, name: str, value: str) -> registry_pb2.CatalogueAdapter | None:
    found = list_adapters(connections.registry, specialist)
    return next((item for item in found if getattr(item.adapter, name) == value), None)


def _run_of(connections: Connections, dataset: models_pb2.DatasetBuilt, tell: Tell) -> training_pb2.Run:
    def listed() -> tuple[training_pb2.Run | None, str]:
        request = training_pb2.ListRunsRequest(specialist=dataset.specialist)
        runs: Iterator[training_pb2.Run] = pages("training", connections.training.ListRuns, request, "runs")
        run = next((run for run in runs if run.dataset_digest == dataset.digest), None)
        return run, "waiting for training to take the dataset"

    try:
        return until(listed, tell, stalled_seconds=HEAR_SECONDS)
    except DeadlineExceeded:
        request = training_pb2.CreateRunRequest(
            specialist=dataset.specialist,
            dataset_digest=dataset.digest,
            base=dataset.base,
            recipe=dataset.recipe,
            request_id=new_id("req"),
        )
        return patiently(lambda: unary("training", connections.training.CreateRun, request).run, tell)


def _measured(connections: Connections, digest: str) -> str:
    request = evaluation_pb2.GetEvaluationRequest(adapter_digest=digest)
    try:
        answer = unary("evaluation", connections.evaluation.GetEvaluation, request)
    except NotFound:
        return "waiting for the evaluation to begin"
    if answer.state == evaluation_pb2.EVALUATION_STATE_FAILED:
        raise FailedPrecondition(
            Reason(answer.reason or Reason.EVALUATION_FAILED), "The candidate could not be measured."
        )
    if answer.state == evaluation_pb2.EVALUATION_STATE_SUCCEEDED:
        return "measured; the gate decides"
    return f"{answer.rows_done} of {answer.rows_total} rows measured"
