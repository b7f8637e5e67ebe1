"""One function per page or command. A service that does not answer becomes a `ServiceFailure`; the rest of the page still shows."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Generic, TypeVar

from services.console.clients import Services
from services.console.domain import BASE, GIVEN_ROLES, Judgement, KeyTerms, Page, Permission, Question, Visitor
from services.console.reads import (
    find_run,
    read_page,
    scan,
)
from services.console.rules import sort_queue
from tailor.api.evaluation.v1.evaluation_pb2 import GetEvaluationRequest, GetEvaluationResponse
from tailor.api.events.v1 import drafts_pb2
from tailor.api.events.v1.models_pb2 import DatasetBuilt, SpecialistServing
from tailor.api.inference.v1 import inference_pb2
from tailor.api.registry.v1 import registry_pb2
from tailor.api.registry.v1.audit_pb2 import GetAuditRequest, GetAuditResponse
from tailor.api.registry.v1.registry_pb2 import CatalogueAdapter, GetSpecialistResponse, TraceResponse
from tailor.api.synthetic.v1.synthetic_pb2 import CountNearDuplicatesRequest, CountNearDuplicatesResponse
from tailor.api.training.v1 import training_pb2
from tailor.api.training.v1.training_pb2 import Base, Run, WatchRunRequest, WatchRunResponse
from tailor.codec import decode, encode
from tailor.errors import InvalidArgument, NotFound, Reason, TailorError
from tailor.rpc.channel import CallStream
from tailor.values import DEFAULT_JUDGING_CRITERIA, JudgingCriterion

T = TypeVar("T")

SERVICES = ("ingestion", "anonymization", "synthetic", "training", "evaluation", "registry", "inference")
PAGE_SIZE = 100
OUTCOMES = {
    "ranked": drafts_pb2.JUDGEMENT_OUTCOME_UNSPECIFIED,
    "tie": drafts_pb2.JUDGEMENT_OUTCOME_TIE,
    "both_bad": drafts_pb2.JUDGEMENT_OUTCOME_BOTH_BAD,
}


@dataclass(frozen=True)
class ServiceFailure:
    """A service that did not answer, and why."""

    service: str
    reason: str
    message: str


@dataclass(frozen=True)
class ServiceAnswer(Generic[T]):
    """A service's answer, or a default value and the failure."""

    value: T
    failure: ServiceFailure | None = None

    @property
    def failures(self) -> tuple[ServiceFailure, ...]:
        return (self.failure,) if self.failure else ()


@dataclass(frozen=True)
class NewKey:
    """A new API key with its secret, which is shown once, never stored, and never logged."""

    key: registry_pb2.Key
    secret: str = field(repr=False)


@dataclass(frozen=True)
class RunsPage:
    """A page of runs, and those of them that wait, each with its place in the queue."""

    page: Page[Run]
    waiting: tuple[tuple[int, Run], ...] = ()


def call(service: str, ask: Callable[[], T], default: T) -> ServiceAnswer[T]:
    """The service's answer, or the default with the failure. NotFound is an answer, so it is raised."""
    try:
        return ServiceAnswer(ask())
    except NotFound:
        raise
    except TailorError as error:
        return ServiceAnswer(default, ServiceFailure(service, error.reason, error.message))


def _visible(page: Page[T], visitor: Visitor, specialist_of: Callable[[T], str]) -> Page[T]:
    return Page(tuple(item for item in page.items if visitor.may_use(specialist_of(item))), page.next_token)


def list_datasets(services: Services, visitor: Visitor, specialist: str = "") -> ServiceAnswer[Page[DatasetBuilt]]:
    """The newest datasets, of all specialists or of one."""
    answer = call(
        "registry",
        lambda: read_page(services.registry.ListDatasets, registry_pb2.ListDatasetsRequest(specialist=specialist)),
        Page[DatasetBuilt](),
    )
    return ServiceAnswer(_visible(answer.value, visitor, lambda item: item.specialist), answer.failure)


def get_dataset(
    services: Services, visitor: Visitor, digest: str
) -> ServiceAnswer[tuple[DatasetBuilt, tuple[CatalogueAdapter, ...]] | None]:
    """A dataset and the adapters trained on it. Raises NotFound if it is unknown or not visible to the visitor."""

    def find() -> tuple[DatasetBuilt, tuple[CatalogueAdapter, ...]]:
        request = registry_pb2.GetDatasetRequest(digest=digest)
        unknown = NotFound(Reason.UNKNOWN_DATASET, "This dataset does not exist, or you do not have access to it.")
        dataset = _find(lambda: services.registry.GetDataset(request).dataset, unknown)
        if not visitor.may_use(dataset.specialist):
            # Specialists with the same rows share a digest; the visitor may use another one of them.
            visible = (
                item
                for item in scan(services.registry.ListDatasets, registry_pb2.ListDatasetsRequest())
                if visitor.may_use(item.specialist)
            )
            shared = next((item for item in visible if item.digest == dataset.digest), None)
            if shared is None:
                raise unknown
            dataset = shared
        adapters = scan(services.registry.ListAdapters, registry_pb2.ListAdaptersRequest())
        return dataset, tuple(item for item in adapters if item.adapter.dataset_digest == dataset.digest)

    return call("registry", find, None)


def list_runs(services: Services, visitor: Visitor) -> ServiceAnswer[RunsPage]:
    """The newest runs, and the places in the queue of those of them that wait."""
    answer = call(
        "training", lambda: read_page(services.training.ListRuns, training_pb2.ListRunsRequest()), Page[Run]()
    )
    places = {run.run_id: place for place, run in enumerate(sort_queue(answer.value.items), start=1)}
    page = _visible(answer.value, visitor, lambda item: item.specialist)
    waiting = tuple((places[run.run_id], run) for run in sort_queue(page.items))
    return ServiceAnswer(RunsPage(page, waiting), answer.failure)


def list_bases(services: Services) -> ServiceAnswer[tuple[Base, ...]]:
    """The stored bases, which belong to no specialist."""
    return call("training", lambda: tuple(services.training.ListBases(training_pb2.ListBasesRequest()).bases), ())


def get_run(services: Services, visitor: Visitor, run_id: str) -> ServiceAnswer[Run | None]:
    """A run. Raises NotFound if it is unknown or not visible to the visitor."""
    answer: ServiceAnswer[Run | None] = call("training", lambda: find_run(services, run_id), None)
    if answer.value:
        visitor.require_specialist(answer.value.specialist)
    return answer


def watch_run(services: Services, visitor: Visitor, run_id: str) -> CallStream[WatchRunResponse]:
    """The run's reports and its workers' logs, from the first one."""
    visitor.require_specialist(find_run(services, run_id).specialist)
    return services.training.WatchRun(WatchRunRequest(run_id=run_id))


def list_adapters(services: Services, visitor: Visitor, specialist: str = "") -> ServiceAnswer[Page[CatalogueAdapter]]:
    """The newest adapters, of all specialists or of one."""
    answer = call(
        "registry",
        lambda: read_page(services.registry.ListAdapters, registry_pb2.ListAdaptersRequest(specialist=specialist)),
        Page[CatalogueAdapter](),
    )
    return ServiceAnswer(_visible(answer.value, visitor, lambda item: item.adapter.specialist), answer.failure)


def get_adapter(services: Services, visitor: Visitor, digest: str) -> ServiceAnswer[CatalogueAdapter | None]:
    """An adapter. Raises NotFound if it is unknown or not visible to the visitor."""
    return call("registry", lambda: require_adapter(services, visitor, digest), None)


def require_adapter(services: Services, visitor: Visitor, digest: str) -> CatalogueAdapter:
    """An adapter, for what the visitor does with it. Raises NotFound as `get_adapter`, and what the registry raises."""
    unknown = NotFound(Reason.UNKNOWN_ADAPTER, "This adapter does not exist, or you do not have access to it.")
    request = registry_pb2.GetAdapterRequest(digest=digest)
    adapter = _find(lambda: services.registry.GetAdapter(request).adapter, unknown)
    if not visitor.may_use(adapter.adapter.specialist):
        raise unknown
    return adapter


def _find(get: Callable[[], T], unknown: NotFound) -> T:
    try:
        return get()
    except InvalidArgument:  # not a digest, or the beginning of several
        raise unknown from None


def get_evaluation(services: Services, digest: str) -> ServiceAnswer[GetEvaluationResponse | None]:
    """The newest evaluation of an adapter; None if it was never evaluated."""
    request = GetEvaluationRequest(adapter_digest=digest)
    try:
        return call("evaluation", lambda: services.evaluation.GetEvaluation(request), None)
    except NotFound:
        return ServiceAnswer(None)


def list_specialists(services: Services, visitor: Visitor) -> ServiceAnswer[tuple[GetSpecialistResponse, ...]]:
    """All specialists visible to the visitor, by name."""

    def scan_specialists() -> tuple[GetSpecialistResponse, ...]:
        return tuple(
            item
            for item in scan(services.registry.ListSpecialists, registry_pb2.ListSpecialistsRequest())
            if visitor.may_use(item.specialist.name)
        )

    return call("registry", scan_specialists, ())


def list_served(services: Services, visitor: Visitor) -> ServiceAnswer[tuple[inference_pb2.ServedSpecialist, ...]]:
    """The specialists that inference serves to the visitor, without the base."""
    request = inference_pb2.ListSpecialistsRequest()
    answer = call(
        "inference",
        lambda: services.inference.ListSpecialists(request),
        inference_pb2.ListSpecialistsResponse(),
    )
    visible = tuple(item for item in answer.value.specialists if item.name != BASE and visitor.may_use(item.name))
    return ServiceAnswer(visible, answer.failure)


@dataclass(frozen=True)
class JudgedSpecialist:
    """What judging a specialist's drafts needs to know of it.

    `round` is the sentence of what its next round lacks; empty if it learns from no rankings.
    """

    keeps_drafts: bool
    round: str
    criteria: tuple[JudgingCriterion, ...]


def list_judged(services: Services, visitor: Visitor) -> ServiceAnswer[dict[str, JudgedSpecialist] | None]:
    """The visitor's specialists by name; None if the registry does not answer."""
    answer = list_specialists(services, visitor)
    if answer.failure:
        return ServiceAnswer(None, answer.failure)
    return ServiceAnswer(
        {
            item.specialist.name: JudgedSpecialist(
                item.specialist.keep_drafts,
                item.round.sentence,
                tuple(decode(JudgingCriterion, item) for item in item.specialist.judging.criteria)
                or DEFAULT_JUDGING_CRITERIA,
            )
            for item in answer.value
        }
    )


def list_learning(services: Services, visitor: Visitor) -> ServiceAnswer[dict[str, str] | None]:
    """The visitor's specialists that store draft text, so that rankings become rows; None if the registry does not answer.

    Each has the sentence of what its next round lacks, which is empty if its pipeline does not learn from rankings.
    """
    answer = list_judged(services, visitor)
    known = (
        None if answer.value is None else {name: item.round for name, item in answer.value.items() if item.keeps_drafts}
    )
    return ServiceAnswer(known, answer.failure)


def ask(services: Services, visitor: Visitor, question: Question) -> CallStream[inference_pb2.StreamGenerateResponse]:
    """Stream the answer. Raises NotFound for a specialist that is not visible to the visitor."""
    if question.model != BASE:
        visitor.require_specialist(question.model)
    sampling = inference_pb2.Sampling(temperature=question.temperature, max_tokens=question.max_tokens or 0)
    request = inference_pb2.GenerateRequest(model=question.model, prompt=question.prompt, sampling=sampling)
    return services.inference.StreamGenerate(inference_pb2.StreamGenerateRequest(request=request))


def trace_draft(services: Services, visitor: Visitor, draft_id: str) -> TraceResponse:
    """The origin of a draft. Raises NotFound for an unknown draft, or one that the visitor may not see.

    Those are drafts of other specialists and, for callers, drafts that another key requested.
    """
    trace = services.registry.Trace(registry_pb2.TraceRequest(draft_id=draft_id))
    is_foreign = trace.draft.specialist and not visitor.may_use(trace.draft.specialist)
    if is_foreign or not visitor.may_trace(trace.draft.key_id):
        raise NotFound(Reason.UNKNOWN_DRAFT, "This draft does not exist, or you do not have access to it.")
    if not visitor.may(Permission.TRACE_DOCUMENTS):
        trace.ClearField("documents")
    return trace


def get_run_of_draft(services: Services, visitor: Visitor, trace: TraceResponse) -> ServiceAnswer[Run | None]:
    """The run that trained the draft's adapter; None for the base, for a run that training no longer knows, and without access to runs."""
    if not trace.HasField("adapter") or not visitor.may(Permission.RUNS):
        return ServiceAnswer(None)
    try:
        return call("training", lambda: find_run(services, trace.adapter.run_id), None)
    except NotFound:
        return ServiceAnswer(None)


def get_draft_text(
    services: Services, visitor: Visitor, draft: drafts_pb2.DraftCreated
) -> ServiceAnswer[inference_pb2.GetDraftResponse | None]:
    """A draft's stored text; None if the visitor may not read it."""
    if not visitor.may_read(draft.key_id):
        return ServiceAnswer(None)
    return read_draft(services, draft.draft_id)


def read_draft(services: Services, draft_id: str) -> ServiceAnswer[inference_pb2.GetDraftResponse | None]:
    """A draft's stored text, for a visitor who may read it."""
    request = inference_pb2.GetDraftRequest(draft_id=draft_id)
    return call("inference", lambda: services.inference.GetDraft(request), None)


def record_judgement(
    services: Services, visitor: Visitor, judgement: Judgement, attempt: str = ""
) -> drafts_pb2.JudgementRecorded:
    """Record a judgement. The same judgement by the same visitor in one attempt is recorded once."""
    for draft_id in judgement.ranking if visitor.specialists else ():
        trace_draft(services, visitor, draft_id)
    # A form that is sent again was shown for longer.
    content = "\n".join(
        [visitor.key_id or visitor.name, *([attempt] if attempt else []), repr(replace(judgement, seconds=0))]
    )
    request = encode(
        registry_pb2.RecordJudgementRequest,
        judgement,
        outcome=OUTCOMES[judgement.outcome],
        request_id=f"console-{hashlib.sha256(content.encode()).hexdigest()[:32]}",
        judged_by=visitor.key_id,
    )
    return services.registry.RecordJudgement(request).judgement


def promote(services: Services, visitor: Visitor, specialist: str, digest: str, generation: int) -> SpecialistServing:
    """Make an adapter serve. Raises Aborted unless `generation` is the current one."""
    visitor.require_specialist(specialist)
    request = registry_pb2.PromoteRequest(specialist=specialist, adapter_digest=digest, expected_generation=generation)
    return services.registry.Promote(request).serving


def roll_back(services: Services, visitor: Visitor, specialist: str, generation: int) -> SpecialistServing:
    """Make the previous adapter serve again. Raises Aborted as in `promote`."""
    visitor.require_specialist(specialist)
    request = registry_pb2.RollbackRequest(specialist=specialist, expected_generation=generation)
    return services.registry.Rollback(request).serving


def start_canary(
    services: Services, visitor: Visitor, specialist: str, digest: str, generation: int
) -> SpecialistServing:
    """Serve an adapter to a share of the callers, by the specialist's own policy. Raises Aborted as in `promote`."""
    visitor.require_specialist(specialist)
    request = registry_pb2.StartCanaryRequest(
        specialist=specialist, adapter_digest=digest, expected_generation=generation
    )
    return services.registry.StartCanary(request).serving


def stop_canary(services: Services, visitor: Visitor, specialist: str, generation: int) -> SpecialistServing:
    """End the canary. Raises Aborted as in `promote`."""
    visitor.require_specialist(specialist)
    request = registry_pb2.StopCanaryRequest(specialist=specialist, expected_generation=generation)
    return services.registry.StopCanary(request).serving


def audit_documents(
    services: Services, visitor: Visitor, specialist: str
) -> tuple[ServiceAnswer[GetAuditResponse | None], ServiceAnswer[CountNearDuplicatesResponse | None]]:
    """Counts of the documents of all specialists or of one (`Visitor.focus`), and of near-duplicates among them."""
    specialist = visitor.focus(specialist)
    counts: ServiceAnswer[GetAuditResponse | None] = call(
        "registry", lambda: services.registry.GetAudit(GetAuditRequest(specialist=specialist)), None
    )
    request = CountNearDuplicatesRequest(specialist=specialist)
    near: ServiceAnswer[CountNearDuplicatesResponse | None] = call(
        "synthetic", lambda: services.synthetic.CountNearDuplicates(request), None
    )
    return counts, near


# The registry admits the console itself to the calls below, so the console refuses what the registry would refuse to the visitor's own key.


def create_key(services: Services, visitor: Visitor, terms: KeyTerms) -> NewKey:
    """Create an API key. Raises InvalidArgument or NotFound if it would allow more specialists than the visitor's own."""
    visitor.require(Permission.MANAGE_KEYS)
    if visitor.specialists and not terms.specialists:
        raise InvalidArgument(
            Reason.INVALID_KEY,
            "Your key is limited to some specialists, so a new key must be too.",
            field_violations={"specialists": "must name at least one of your own"},
        )
    if terms.role not in GIVEN_ROLES:
        raise InvalidArgument(
            Reason.INVALID_KEY,
            "The console does not give this role; `tailor key create NAME --role ROLE` does, with a key that has it.",
            field_violations={"role": f"must be one of {', '.join(GIVEN_ROLES)}"},
        )
    for specialist in terms.specialists:
        visitor.require_specialist(specialist)
    request = encode(registry_pb2.CreateKeyRequest, terms, created_by=visitor.key_id)
    if terms.days:
        request.expire_time.FromDatetime(datetime.now(UTC) + timedelta(days=terms.days))
    response = services.registry.CreateKey(request)
    return NewKey(response.key, response.secret)


def revoke_key(services: Services, visitor: Visitor, key_id: str) -> None:
    """Revoke an API key. Raises NotFound for an unknown key, or one that allows more than the visitor's own."""
    visitor.require(Permission.MANAGE_KEYS)
    keys = scan(services.registry.ListKeys, registry_pb2.ListKeysRequest()) if visitor.specialists else ()
    if visitor.specialists and not any(key.key_id == key_id and visitor.may_grant(key.specialists) for key in keys):
        raise NotFound(Reason.UNKNOWN_KEY, "This key does not exist, or you do not have access to it.")
    services.registry.RevokeKey(registry_pb2.RevokeKeyRequest(key_id=key_id, revoked_by=visitor.key_id))
