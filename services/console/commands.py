"""What engineers start: builds of datasets, runs and evaluations.

The services admit the console itself to these calls, so the console refuses what they would refuse to the visitor's own key.
"""

from services.console.clients import Services
from services.console.domain import DATASET_KINDS, ORIGIN_KINDS, Permission, RunTerms, Visitor
from services.console.handlers import ServiceAnswer, call, get_dataset, list_datasets, require_adapter
from services.console.reads import find_run, scan
from tailor.api.evaluation.v1.evaluation_pb2 import EvaluateRequest
from tailor.api.events.v1 import models_pb2
from tailor.api.synthetic.v1 import synthetic_pb2
from tailor.api.training.v1 import training_pb2
from tailor.api.training.v1.training_pb2 import Run, RunPlan
from tailor.codec import encode
from tailor.errors import Aborted, DeadlineExceeded, InvalidArgument, Reason, Unavailable

# Longer builds continue without the page that started them.
BUILD_SECONDS = 20


def build_dataset(
    services: Services, visitor: Visitor, specialist: str, kind: str, attempt: str
) -> synthetic_pb2.BuildDatasetResponse | None:
    """Build a specialist's dataset; None if the build takes longer, and continues. Raises FailedPrecondition for too few rows."""
    visitor.require(Permission.BUILD)
    visitor.require_specialist(specialist)
    if kind not in DATASET_KINDS:
        field = {"kind": f"must be {' or '.join(DATASET_KINDS)}"}
        raise InvalidArgument(Reason.INVALID_REQUEST, "This dataset cannot be built.", field_violations=field)
    request = synthetic_pb2.BuildDatasetRequest(
        specialist=specialist,
        kind=models_pb2.DatasetKind.Value(f"DATASET_KIND_{kind.upper()}"),
        request_id=attempt,
    )
    try:
        return services.synthetic.BuildDataset(request, timeout=BUILD_SECONDS)
    except DeadlineExceeded:
        return None
    except Aborted as error:
        if error.reason != Reason.BUILD_RUNNING:
            raise
        return None


def list_origins(
    services: Services, visitor: Visitor, specialist: str
) -> ServiceAnswer[tuple[synthetic_pb2.Origin, ...]]:
    """Where the specialist's documents come from, what waits for a look first; nothing for visitors who do not build."""
    if not visitor.may(Permission.BUILD):
        return ServiceAnswer(())
    request = synthetic_pb2.ListOriginsRequest(specialist=specialist)
    return call("synthetic", lambda: tuple(scan(services.synthetic.ListOrigins, request)), ())


def admit_origin(services: Services, visitor: Visitor, specialist: str, kind: str, name: str) -> None:
    """Let the specialist learn from a source or publisher. Raises InvalidArgument for an unknown kind, NotFound for an unknown origin."""
    visitor.require(Permission.BUILD)
    visitor.require_specialist(specialist)
    if kind not in ORIGIN_KINDS:
        field = {"kind": f"must be {' or '.join(ORIGIN_KINDS)}"}
        raise InvalidArgument(Reason.INVALID_REQUEST, "This cannot be admitted.", field_violations=field)
    request = synthetic_pb2.AdmitOriginRequest(
        specialist=specialist,
        kind=synthetic_pb2.OriginKind.Value(f"ORIGIN_KIND_{kind.upper()}"),
        name=name,
        admitted_by=visitor.key_id,
    )
    services.synthetic.AdmitOrigin(request)


def suggest_run(services: Services, visitor: Visitor, digest: str) -> ServiceAnswer[RunTerms | None]:
    """The run of the specialist's pipeline on a dataset, with the newest rankings. Raises NotFound for a dataset that is not visible."""
    answer = get_dataset(services, visitor, digest)
    if answer.value is None:
        return ServiceAnswer(None, answer.failure)
    dataset, _ = answer.value
    newest = list_datasets(services, visitor, dataset.specialist).value.items
    rankings = (item.digest for item in newest if item.kind == models_pb2.DATASET_KIND_PREFERENCE)
    is_ranked = dataset.kind == models_pb2.DATASET_KIND_PREFERENCE
    # The first stage learns from documents, the others from rankings.
    recipes = [stage.recipe for stage in dataset.pipeline][1 if is_ranked else 0 :]
    return ServiceAnswer(
        RunTerms(
            specialist=dataset.specialist,
            dataset=dataset.digest,
            base=dataset.base or "base",
            recipe=", ".join(recipes) or ("dpo" if is_ranked else "lora"),
            preferences=next(rankings, "") if len(recipes) > 1 and not is_ranked else "",
        ),
        answer.failure,
    )


def plan_run(services: Services, visitor: Visitor, terms: RunTerms) -> RunPlan:
    """Forecast a run. Raises InvalidArgument, NotFound for what is not visible to the visitor."""
    _check(services, visitor, terms)
    return services.training.PlanRun(encode(training_pb2.PlanRunRequest, terms, **_digests(terms))).plan


def start_run(services: Services, visitor: Visitor, terms: RunTerms, attempt: str) -> Run:
    """Queue a run. Raises as `plan_run`, and FailedPrecondition (DOES_NOT_FIT)."""
    _check(services, visitor, terms)
    request = encode(training_pb2.CreateRunRequest, terms, **_digests(terms), request_id=attempt)
    return services.training.CreateRun(request).run


def cancel_run(services: Services, visitor: Visitor, run_id: str) -> Run:
    """End a run. Raises NotFound if it is not visible to the visitor, FailedPrecondition if it has ended."""
    visitor.require(Permission.MANAGE_RUNS)
    visitor.require_specialist(find_run(services, run_id).specialist)
    return services.training.CancelRun(training_pb2.CancelRunRequest(run_id=run_id)).run


def approve_run(services: Services, visitor: Visitor, run_id: str) -> Run:
    """Start a run that waits for approval. Raises NotFound if it is not visible to the visitor, FailedPrecondition if it does not wait."""
    visitor.require(Permission.MANAGE_RUNS)
    visitor.require_specialist(find_run(services, run_id).specialist)
    request = training_pb2.ApproveRunRequest(run_id=run_id, approved_by=visitor.key_id)
    return services.training.ApproveRun(request).run


def resume_run(services: Services, visitor: Visitor, run_id: str, attempt: str) -> Run:
    """Start a cancelled or failed run where it stopped. Raises NotFound if it is not visible to the visitor."""
    run = find_run(services, run_id)
    terms = RunTerms(
        specialist=run.specialist,
        dataset=run.dataset_digest,
        base=run.base,
        recipe=run.recipe,
        preferences=run.preference_dataset_digest,
        parent=run.parent_digest,
        priority=run.priority,
    )
    return start_run(services, visitor, terms, attempt)


def evaluate(services: Services, visitor: Visitor, digest: str, attempt: str) -> str:
    """Queue another evaluation of an adapter; returns its digest. Raises NotFound if it is not visible to the visitor."""
    visitor.require(Permission.EVALUATE)
    adapter = require_adapter(services, visitor, digest).adapter
    services.evaluation.Evaluate(EvaluateRequest(adapter_digest=adapter.digest, request_id=attempt))
    return adapter.digest


def _digests(terms: RunTerms) -> dict[str, str]:
    return {
        "dataset_digest": terms.dataset,
        "parent_digest": terms.parent,
        "preference_dataset_digest": terms.preferences,
    }


def _check(services: Services, visitor: Visitor, terms: RunTerms) -> None:
    """Raises NotFound unless the visitor may use the specialist, the datasets and the adapter; Unavailable if it cannot be known."""
    visitor.require(Permission.MANAGE_RUNS)
    visitor.require_specialist(terms.specialist)
    if not visitor.specialists:
        return
    for digest in filter(None, (terms.dataset, terms.preferences)):
        answer = get_dataset(services, visitor, digest)
        if answer.failure:
            raise Unavailable(Reason.UNAVAILABLE, answer.failure.message)
    if terms.parent:
        require_adapter(services, visitor, terms.parent)
