"""One function per page or command. A service that does not answer becomes a `ServiceFailure`; the rest of the page still shows."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from services.console.domain import BASE, GIVEN_ROLES, Judgement, KeyTerms, Page, Permission, Question, Visitor
from services.console.ports import CloseableStream, NewKey, Services
from services.console.rules import sort_queue
from tailor.api.evaluation.v1.evaluation_pb2 import GetEvaluationResponse
from tailor.api.events.v1.drafts_pb2 import DraftCreated, JudgementRecorded
from tailor.api.events.v1.models_pb2 import DatasetBuilt, SpecialistServing
from tailor.api.inference.v1.inference_pb2 import GetDraftResponse, ServedSpecialist, StreamGenerateResponse
from tailor.api.registry.v1.audit_pb2 import GetAuditResponse
from tailor.api.registry.v1.registry_pb2 import (
    CatalogueAdapter,
    GetSpecialistResponse,
    TraceResponse,
)
from tailor.api.synthetic.v1.synthetic_pb2 import CountNearDuplicatesResponse
from tailor.api.training.v1.training_pb2 import Run, WatchRunResponse
from tailor.errors import InvalidArgument, NotFound, Reason, TailorError
from tailor.wire import to_judging_criterion
from tailor.words import DEFAULT_JUDGING_CRITERIA, JudgingCriterion

T = TypeVar("T")

SERVICES = ("ingestion", "anonymization", "synthetic", "training", "evaluation", "registry", "inference")
PAGE_SIZE = 100
MAX_SCANNED_PAGES = 20


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


def scan(list_page: Callable[[str], Page[T]]) -> Iterator[T]:
    """The items of a paged list, up to a limited number of pages. Raises what `list_page` raises."""
    token = ""
    for _ in range(MAX_SCANNED_PAGES):
        page = list_page(token)
        yield from page.items
        token = page.next_token
        if not token:
            return


def _visible(page: Page[T], visitor: Visitor, specialist_of: Callable[[T], str]) -> Page[T]:
    return Page(tuple(item for item in page.items if visitor.may_use(specialist_of(item))), page.next_token)


def list_datasets(services: Services, visitor: Visitor, specialist: str = "") -> ServiceAnswer[Page[DatasetBuilt]]:
    """The newest datasets, of all specialists or of one."""
    answer = call("registry", lambda: services.catalogue.list_datasets("", specialist), Page[DatasetBuilt]())
    return ServiceAnswer(_visible(answer.value, visitor, lambda item: item.specialist), answer.failure)


def get_dataset(
    services: Services, visitor: Visitor, digest: str
) -> ServiceAnswer[tuple[DatasetBuilt, tuple[CatalogueAdapter, ...]] | None]:
    """A dataset and the adapters trained on it. Raises NotFound if it is unknown or not visible to the visitor."""

    def find() -> tuple[DatasetBuilt, tuple[CatalogueAdapter, ...]]:
        unknown = NotFound(Reason.UNKNOWN_DATASET, "This dataset does not exist, or you do not have access to it.")
        dataset = _find(services.catalogue.get_dataset, digest, unknown)
        if not visitor.may_use(dataset.specialist):
            # Specialists with the same rows share a digest; the visitor may use another one of them.
            visible = (item for item in scan(services.catalogue.list_datasets) if visitor.may_use(item.specialist))
            shared = next((item for item in visible if item.digest == dataset.digest), None)
            if shared is None:
                raise unknown
            dataset = shared
        adapters = scan(services.catalogue.list_adapters)
        return dataset, tuple(item for item in adapters if item.adapter.dataset_digest == dataset.digest)

    return call("registry", find, None)


def list_runs(services: Services, visitor: Visitor) -> ServiceAnswer[RunsPage]:
    """The newest runs, and the places in the queue of those of them that wait."""
    answer = call("training", lambda: services.training.list_runs(""), Page[Run]())
    places = {run.run_id: place for place, run in enumerate(sort_queue(answer.value.items), start=1)}
    page = _visible(answer.value, visitor, lambda item: item.specialist)
    waiting = tuple((places[run.run_id], run) for run in sort_queue(page.items))
    return ServiceAnswer(RunsPage(page, waiting), answer.failure)


def get_run(services: Services, visitor: Visitor, run_id: str) -> ServiceAnswer[Run | None]:
    """A run. Raises NotFound if it is unknown or not visible to the visitor."""
    answer: ServiceAnswer[Run | None] = call("training", lambda: services.training.get_run(run_id), None)
    if answer.value:
        visitor.require_specialist(answer.value.specialist)
    return answer


def watch_run(services: Services, visitor: Visitor, run_id: str) -> CloseableStream[WatchRunResponse]:
    """The run's reports and its workers' logs, from the first one."""
    visitor.require_specialist(services.training.get_run(run_id).specialist)
    return services.training.watch_run(run_id)


def list_adapters(services: Services, visitor: Visitor, specialist: str = "") -> ServiceAnswer[Page[CatalogueAdapter]]:
    """The newest adapters, of all specialists or of one."""
    answer = call("registry", lambda: services.catalogue.list_adapters("", specialist), Page[CatalogueAdapter]())
    return ServiceAnswer(_visible(answer.value, visitor, lambda item: item.adapter.specialist), answer.failure)


def get_adapter(services: Services, visitor: Visitor, digest: str) -> ServiceAnswer[CatalogueAdapter | None]:
    """An adapter. Raises NotFound if it is unknown or not visible to the visitor."""
    return call("registry", lambda: require_adapter(services, visitor, digest), None)


def require_adapter(services: Services, visitor: Visitor, digest: str) -> CatalogueAdapter:
    """An adapter, for what the visitor does with it. Raises NotFound as `get_adapter`, and what the registry raises."""
    unknown = NotFound(Reason.UNKNOWN_ADAPTER, "This adapter does not exist, or you do not have access to it.")
    adapter = _find(services.catalogue.get_adapter, digest, unknown)
    if not visitor.may_use(adapter.adapter.specialist):
        raise unknown
    return adapter


def _find(get: Callable[[str], T], digest: str, unknown: NotFound) -> T:
    try:
        return get(digest)
    except InvalidArgument:  # not a digest, or the beginning of several
        raise unknown from None


def get_evaluation(services: Services, digest: str) -> ServiceAnswer[GetEvaluationResponse | None]:
    """The newest evaluation of an adapter; None if it was never evaluated."""
    try:
        return call("evaluation", lambda: services.get_evaluation(digest), None)
    except NotFound:
        return ServiceAnswer(None)


def list_specialists(services: Services, visitor: Visitor) -> ServiceAnswer[tuple[GetSpecialistResponse, ...]]:
    """All specialists visible to the visitor, by name."""

    def scan_specialists() -> tuple[GetSpecialistResponse, ...]:
        return tuple(
            item for item in scan(services.catalogue.list_specialists) if visitor.may_use(item.specialist.name)
        )

    return call("registry", scan_specialists, ())


def list_served(services: Services, visitor: Visitor) -> ServiceAnswer[tuple[ServedSpecialist, ...]]:
    """The specialists that inference serves to the visitor, without the base."""
    answer = call("inference", services.inference.list_served, tuple[ServedSpecialist, ...]())
    visible = tuple(item for item in answer.value if item.name != BASE and visitor.may_use(item.name))
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
                tuple(map(to_judging_criterion, item.specialist.judging.criteria)) or DEFAULT_JUDGING_CRITERIA,
            )
            for item in answer.value
        }
    )


def list_learning(services: Services, visitor: Visitor) -> ServiceAnswer[dict[str, str] | None]:
    """The visitor's specialists that store draft text, so that rankings become rows; None if the registry does not answer.

    Each has the sentence of what its next round lacks, which is empty if its programme does not learn from rankings.
    """
    answer = list_judged(services, visitor)
    known = (
        None if answer.value is None else {name: item.round for name, item in answer.value.items() if item.keeps_drafts}
    )
    return ServiceAnswer(known, answer.failure)


def ask(services: Services, visitor: Visitor, question: Question) -> CloseableStream[StreamGenerateResponse]:
    """Stream the answer. Raises NotFound for a specialist that is not visible to the visitor."""
    if question.model != BASE:
        visitor.require_specialist(question.model)
    return services.inference.ask(question)


def trace_draft(services: Services, visitor: Visitor, draft_id: str) -> TraceResponse:
    """The origin of a draft. Raises NotFound for an unknown draft, or one that the visitor may not see.

    Those are drafts of other specialists and, for callers, drafts that another key requested.
    """
    trace = services.catalogue.trace(draft_id)
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
        return call("training", lambda: services.training.get_run(trace.adapter.run_id), None)
    except NotFound:
        return ServiceAnswer(None)


def get_draft_text(services: Services, visitor: Visitor, draft: DraftCreated) -> ServiceAnswer[GetDraftResponse | None]:
    """A draft's stored text; None if the visitor may not read it."""
    if not visitor.may_read(draft.key_id):
        return ServiceAnswer(None)
    return call("inference", lambda: services.inference.get_draft(draft.draft_id), None)


def record_judgement(
    services: Services, visitor: Visitor, judgement: Judgement, attempt: str = ""
) -> JudgementRecorded:
    """Record a judgement. The same judgement by the same visitor in one attempt is recorded once."""
    for draft_id in judgement.ranking if visitor.specialists else ():
        trace_draft(services, visitor, draft_id)
    content = "\n".join([visitor.key_id or visitor.name, *([attempt] if attempt else []), repr(judgement)])
    request_id = f"console-{hashlib.sha256(content.encode()).hexdigest()[:32]}"
    return services.decisions.record_judgement(judgement, request_id, visitor.key_id)


def promote(services: Services, visitor: Visitor, specialist: str, digest: str, generation: int) -> SpecialistServing:
    """Make an adapter serve. Raises Aborted unless `generation` is the current one."""
    visitor.require_specialist(specialist)
    return services.decisions.promote(specialist, digest, generation)


def roll_back(services: Services, visitor: Visitor, specialist: str, generation: int) -> SpecialistServing:
    """Make the previous adapter serve again. Raises Aborted as in `promote`."""
    visitor.require_specialist(specialist)
    return services.decisions.roll_back(specialist, generation)


def start_canary(
    services: Services, visitor: Visitor, specialist: str, digest: str, generation: int
) -> SpecialistServing:
    """Serve an adapter to a share of the callers, by the specialist's own policy. Raises Aborted as in `promote`."""
    visitor.require_specialist(specialist)
    return services.decisions.start_canary(specialist, digest, generation)


def stop_canary(services: Services, visitor: Visitor, specialist: str, generation: int) -> SpecialistServing:
    """End the canary. Raises Aborted as in `promote`."""
    visitor.require_specialist(specialist)
    return services.decisions.stop_canary(specialist, generation)


def audit_documents(
    services: Services, visitor: Visitor, specialist: str
) -> tuple[ServiceAnswer[GetAuditResponse | None], ServiceAnswer[CountNearDuplicatesResponse | None]]:
    """Counts of the documents of all specialists or of one (`Visitor.focus`), and of near-duplicates among them."""
    specialist = visitor.focus(specialist)
    counts: ServiceAnswer[GetAuditResponse | None] = call(
        "registry", lambda: services.catalogue.get_audit(specialist), None
    )
    near: ServiceAnswer[CountNearDuplicatesResponse | None] = call(
        "synthetic", lambda: services.count_near_duplicates(specialist), None
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
    return services.keys.create_key(terms, visitor.key_id)


def revoke_key(services: Services, visitor: Visitor, key_id: str) -> None:
    """Revoke an API key. Raises NotFound for an unknown key, or one that allows more than the visitor's own."""
    visitor.require(Permission.MANAGE_KEYS)
    keys = scan(services.keys.list_keys) if visitor.specialists else ()
    if visitor.specialists and not any(key.key_id == key_id and visitor.may_grant(key.specialists) for key in keys):
        raise NotFound(Reason.UNKNOWN_KEY, "This key does not exist, or you do not have access to it.")
    services.keys.revoke_key(key_id, visitor.key_id)
