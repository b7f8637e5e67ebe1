"""What evaluation does on each event and command, up to queueing an evaluation. `worker.py` runs it."""

from services.evaluation.adapters.sql import SqlArtifacts, SqlEvaluations, SqlModelResults
from services.evaluation.baselines.prompt_store import PromptStore
from services.evaluation.domain import Adapter, Evaluation
from services.evaluation.report import ReportStore
from tailor.errors import AlreadyExists, InvalidArgument, NotFound, Reason
from tailor.events.erased import Erased, Forgotten
from tailor.storage.ref import Ref


def queue_evaluation(
    artifacts: SqlArtifacts, evaluations: SqlEvaluations, adapter: Adapter, evaluation_id: str
) -> None:
    """Store a trained adapter and queue its evaluation, unless the next stage of its run starts from it. Idempotent."""
    artifacts.adapters.add(adapter)
    if not adapter.intermediate:
        evaluations.queue(evaluation_id, adapter)


def evaluate_again(
    artifacts: SqlArtifacts, evaluations: SqlEvaluations, adapter_digest: str, evaluation_id: str
) -> Evaluation:
    """Queue another evaluation of an adapter. Idempotent for the same evaluation id.

    Raises NotFound for an unknown adapter and AlreadyExists if the id belongs to another adapter's evaluation.
    """
    evaluation = evaluations.queue(evaluation_id, find_adapter(artifacts, adapter_digest))
    if evaluation.adapter.digest != adapter_digest:
        raise AlreadyExists(Reason.REQUEST_ID_REUSED, "The request id was already used for another adapter.")
    return evaluation


def find_adapter(artifacts: SqlArtifacts, adapter_digest: str) -> Adapter:
    """Raises NotFound for an adapter that no event announced."""
    adapter = artifacts.adapters.find(digest=adapter_digest)
    if adapter is None:
        raise unknown_adapter()
    return adapter


def find_evaluation(evaluations: SqlEvaluations, evaluation_id: str, adapter_digest: str) -> Evaluation:
    """The evaluation with this id, or without an id the newest one of the adapter.

    Raises NotFound if there is none, and InvalidArgument without an id and a digest.
    """
    if not evaluation_id and not adapter_digest:
        raise InvalidArgument(Reason.NOTHING_NAMED, "Set `evaluation_id` or `adapter_digest`.")
    wanted = {"evaluation_id": evaluation_id} if evaluation_id else {"adapter_digest": adapter_digest}
    evaluation = evaluations.newest(**wanted)
    if evaluation is None:
        raise unknown_evaluation()
    return evaluation


def find_report(evaluations: SqlEvaluations, adapter_digest: str) -> Ref:
    """The report of the adapter's newest evaluation. Raises NotFound if that has not succeeded."""
    evaluation = evaluations.newest(adapter_digest=adapter_digest)
    result = evaluations.result(evaluation.evaluation_id) if evaluation else None
    if result is None:
        raise NotFound(Reason.UNKNOWN_EVALUATION, "The adapter's newest evaluation has no result yet.")
    return result.report


def unknown_adapter() -> NotFound:
    return NotFound(Reason.UNKNOWN_ADAPTER, "There is no adapter with this digest.")


def unknown_evaluation() -> NotFound:
    return NotFound(Reason.UNKNOWN_EVALUATION, "There is no such evaluation.")


def forget(
    evaluations: SqlEvaluations, results: SqlModelResults, reports: ReportStore, prompts: PromptStore, erased: Erased
) -> Forgotten:
    """Delete the reports that quote an erased document, the answers behind them, and prompts that were optimised on it.

    The scores stay. Idempotent.
    """
    objects = deleted = 0
    for evaluation_id in evaluations.trained_on(erased.datasets):
        if reports.quotes(evaluation_id, erased.document_id):
            evaluations.withdraw(evaluation_id, Reason.ROWS_ERASED)
            deleted += results.rows.delete(evaluation_id=evaluation_id)
            objects += reports.delete(evaluation_id)
    counts = {"results": deleted, "report_objects": objects, "prompts": prompts.delete(erased.document_id)}
    return Forgotten(counts)
