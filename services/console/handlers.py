"""One function per page or command. What a service does not answer is set down by name, and the rest goes on."""

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from services.console.audits import Audit, NearDuplicates
from services.console.domain import Action, Judgement, Question, Services, Stream, Visitor
from services.console.runs import Run, Watched, queue
from services.console.views import (
    Adapter,
    Dataset,
    Document,
    Draft,
    Erasure,
    Evaluation,
    Flow,
    KeptText,
    Page,
    Piece,
    Rejection,
    Served,
    Serving,
    Specialist,
    Trace,
)
from tailor.errors import NotFound, Reason, TailorError

T = TypeVar("T")

SERVICES = ("ingestion", "anonymization", "synthetic", "training", "evaluation", "registry", "inference")
PAGE_SIZE = 100
SCAN_SIZE = 1_000
MAX_SCANNED_PAGES = 20


@dataclass(frozen=True)
class Failure:
    """A service that did not answer a question, and why."""

    service: str
    reason: str
    message: str


@dataclass(frozen=True)
class Answer(Generic[T]):
    """What a service said, or the failure; then the value is the given default."""

    value: T
    failure: Failure | None = None

    @property
    def failures(self) -> tuple[Failure, ...]:
        """The failure, if there is one."""
        return (self.failure,) if self.failure else ()


@dataclass(frozen=True)
class Overview:
    """The flow at work."""

    flow: Flow
    datasets: Page[Dataset]
    runs: Page[Run]
    adapters: Page[Adapter]
    specialists: Page[Specialist]
    healthy: dict[str, bool]
    failures: tuple[Failure, ...]


@dataclass(frozen=True)
class Runs:
    """A page of runs, and those of them that wait, each with its place in the queue of all."""

    page: Page[Run]
    waiting: tuple[tuple[int, Run], ...] = ()


def ask(service: str, call: Callable[[], T], default: T) -> Answer[T]:
    """The service's answer, or the default and why; NotFound passes, since it is an answer."""
    try:
        return Answer(call())
    except NotFound:
        raise
    except TailorError as error:
        return Answer(default, Failure(service, error.reason, error.message))


def scan(page_of: Callable[[str], Page[T]]) -> Iterator[T]:
    """The items of a paged list, as far as a bounded number of pages reaches. May raise what asking for a page raises."""
    token = ""
    for _ in range(MAX_SCANNED_PAGES):
        page = page_of(token)
        yield from page.items
        token = page.next_token
        if not token:
            return


def overview(services: Services, visitor: Visitor) -> Overview:
    """Everything that the first page shows; the services are asked at once."""
    registry = services.registry
    with ThreadPoolExecutor(max_workers=12, thread_name_prefix="overview") as pool:
        healthy = {name: pool.submit(services.health.check, name) for name in SERVICES}
        training = visitor.may(Action.RUNS)
        flow = pool.submit(ask, "registry", registry.flow, Flow())
        datasets = pool.submit(ask, "registry", lambda: registry.datasets("") if training else Page(), Page[Dataset]())
        runs = pool.submit(ask, "training", lambda: services.training.runs("") if training else Page(), Page[Run]())
        adapters = pool.submit(ask, "registry", lambda: registry.adapters("") if training else Page(), Page[Adapter]())
        specialists = pool.submit(ask, "registry", lambda: registry.specialists(""), Page[Specialist]())
    answers = (flow.result(), datasets.result(), runs.result(), adapters.result(), specialists.result())
    return Overview(
        flow=answers[0].value,
        datasets=_given(answers[1].value, visitor, lambda item: item.specialist),
        runs=_given(answers[2].value, visitor, lambda item: item.specialist),
        adapters=_given(answers[3].value, visitor, lambda item: item.specialist),
        specialists=_given(answers[4].value, visitor, lambda item: item.name),
        healthy={name: future.result() for name, future in healthy.items()},
        failures=tuple(dict.fromkeys(failure for answer in answers for failure in answer.failures)),
    )


def _given(page: Page[T], visitor: Visitor, specialist: Callable[[T], str]) -> Page[T]:
    return Page(tuple(item for item in page.items if visitor.may_use(specialist(item))), page.next_token)


def documents(services: Services, visitor: Visitor, token: str, specialist: str) -> Answer[Page[Document | Rejection]]:
    """A page of documents, the rejected submissions after them."""
    if specialist:
        visitor.need_specialist(specialist)
    return ask("registry", lambda: services.registry.documents(token, specialist, PAGE_SIZE), Page())


def rejections(services: Services) -> Answer[tuple[Rejection, ...]]:
    """The rejected submissions, newest first, as far as a bounded scan reaches."""

    def all_of_them() -> tuple[Rejection, ...]:
        items = scan(lambda token: services.registry.documents(token, "", SCAN_SIZE))
        found = [item for item in items if isinstance(item, Rejection)]
        return tuple(sorted(found, key=lambda item: str(item.create_time), reverse=True))

    return ask("registry", all_of_them, ())


def datasets(services: Services, visitor: Visitor, token: str) -> Answer[Page[Dataset]]:
    """A page of datasets, newest first."""
    answer = ask("registry", lambda: services.registry.datasets(token), Page[Dataset]())
    return Answer(_given(answer.value, visitor, lambda item: item.specialist), answer.failure)


def dataset(services: Services, visitor: Visitor, digest: str) -> Answer[tuple[Dataset, tuple[Adapter, ...]] | None]:
    """One dataset and the adapters that learned from it; NotFound for an unknown one or one that the visitor was not given."""

    def find() -> tuple[Dataset, tuple[Adapter, ...]]:
        for item in scan(services.registry.datasets):
            if item.digest == digest and visitor.may_use(item.specialist):
                made = scan(services.registry.adapters)
                return item, tuple(one for one in made if one.dataset_digest == digest)
        raise NotFound(Reason.UNKNOWN_DATASET, "There is no such dataset, or it was not given to you.")

    return ask("registry", find, None)


def runs(services: Services, visitor: Visitor, token: str) -> Answer[Runs]:
    """A page of runs, newest first, and the places of those of them that wait."""
    answer = ask("training", lambda: services.training.runs(token), Page[Run]())
    places = {run.run_id: place for place, run in enumerate(queue(answer.value.items), start=1)}
    given = _given(answer.value, visitor, lambda item: item.specialist)
    waiting = tuple((places[run.run_id], run) for run in queue(given.items))
    return Answer(Runs(given, waiting), answer.failure)


def run(services: Services, visitor: Visitor, run_id: str) -> Answer[Run | None]:
    """One run; NotFound for an unknown one or one that the visitor was not given."""
    answer: Answer[Run | None] = ask("training", lambda: services.training.run(run_id), None)
    if answer.value:
        visitor.need_specialist(answer.value.specialist)
    return answer


def watch(services: Services, visitor: Visitor, run_id: str) -> Stream[Watched]:
    """The run's reports and its workers' logs from the first on."""
    visitor.need_specialist(services.training.run(run_id).specialist)
    return services.training.watch(run_id)


def adapters(services: Services, visitor: Visitor, token: str) -> Answer[Page[Adapter]]:
    """A page of adapters, newest first."""
    answer = ask("registry", lambda: services.registry.adapters(token), Page[Adapter]())
    return Answer(_given(answer.value, visitor, lambda item: item.specialist), answer.failure)


def adapter(services: Services, visitor: Visitor, digest: str) -> Answer[Adapter | None]:
    """One adapter; NotFound for an unknown one or one that the visitor was not given."""

    def find() -> Adapter:
        for item in scan(services.registry.adapters):
            if item.digest == digest and visitor.may_use(item.specialist):
                return item
        raise NotFound(Reason.UNKNOWN_ADAPTER, "There is no such adapter, or it was not given to you.")

    return ask("registry", find, None)


def evaluation(services: Services, digest: str) -> Answer[Evaluation | None]:
    """The newest evaluation of an adapter; none where it was not measured."""
    try:
        return ask("evaluation", lambda: services.evaluation.evaluation(digest), None)
    except NotFound:
        return Answer(None)


def specialists(services: Services, visitor: Visitor) -> Answer[tuple[Specialist, ...]]:
    """All specialists that the visitor was given, by name."""

    def all_of_them() -> tuple[Specialist, ...]:
        return tuple(item for item in scan(services.registry.specialists) if visitor.may_use(item.name))

    return ask("registry", all_of_them, ())


def served(services: Services, visitor: Visitor) -> Answer[tuple[Served, ...]]:
    """What inference answers for, the base left out."""
    answer = ask("inference", services.inference.specialists, tuple[Served, ...]())
    given = tuple(item for item in answer.value if item.name != "base" and visitor.may_use(item.name))
    return Answer(given, answer.failure)


def keeping(services: Services, visitor: Visitor) -> Answer[frozenset[str] | None]:
    """Those of the visitor's specialists whose drafts' words are kept: rankings of their draws become rows. None where nobody can tell."""
    answer = specialists(services, visitor)
    if answer.failure:
        return Answer(None, answer.failure)
    return Answer(frozenset(item.name for item in answer.value if item.keep_drafts))


def question(services: Services, visitor: Visitor, asked: Question) -> Stream[Piece]:
    """The answer as it comes; NotFound for a specialist that the visitor was not given."""
    if asked.model != "base":
        visitor.need_specialist(asked.model)
    return services.inference.ask(asked)


def trace(services: Services, visitor: Visitor, draft_id: str) -> Trace:
    """Where a draft came from; NotFound for an unknown one or one of a specialist that the visitor was not given."""
    found = services.registry.trace(draft_id)
    if found.draft.specialist and not visitor.may_use(found.draft.specialist):
        raise NotFound(Reason.UNKNOWN_DRAFT, "There is no such draft, or it was not given to you.")
    if visitor.may(Action.TRACE_DOCUMENTS):
        return found
    return Trace(found.draft, found.adapter, found.dataset, (), found.evaluation)


def run_of(services: Services, visitor: Visitor, found: Trace) -> Answer[Run | None]:
    """The run that made the draft's adapter; none for the base, where training no longer knows it, and for who may not see runs."""
    if found.adapter is None or not visitor.may(Action.RUNS):
        return Answer(None)
    run_id = found.adapter.run_id
    try:
        return ask("training", lambda: services.training.run(run_id), None)
    except NotFound:
        return Answer(None)


def draft_text(services: Services, visitor: Visitor, draft: Draft) -> Answer[KeptText | None]:
    """What is kept of a draft's words; None where the visitor may not read them."""
    if not visitor.may_read(draft.key_id):
        return Answer(None)
    return ask("inference", lambda: services.inference.draft(draft.draft_id), None)


def judge(services: Services, visitor: Visitor, judgement: Judgement) -> str:
    """Record a judgement; its id. Said twice by the same visitor, it is recorded once."""
    for draft_id in judgement.ranking if visitor.specialists else ():
        trace(services, visitor, draft_id)
    said = "\n".join([visitor.key_id or visitor.name, repr(judgement)])
    return services.registry.record_judgement(judgement, f"console-{hashlib.sha256(said.encode()).hexdigest()[:32]}")


def promote(services: Services, visitor: Visitor, specialist: str, digest: str, expected_generation: int) -> Serving:
    """Make an adapter serve; Aborted where the generation moved since the visitor saw it."""
    visitor.need_specialist(specialist)
    return services.registry.promote(specialist, digest, expected_generation)


def roll_back(services: Services, visitor: Visitor, specialist: str, expected_generation: int) -> Serving:
    """Make the previous adapter serve again; Aborted as in promote."""
    visitor.need_specialist(specialist)
    return services.registry.roll_back(specialist, expected_generation)


def start_canary(services: Services, visitor: Visitor, specialist: str, digest: str, generation: int) -> Serving:
    """Let a share of the callers get an adapter, by the specialist's own rules; Aborted as in promote."""
    visitor.need_specialist(specialist)
    return services.registry.start_canary(specialist, digest, generation)


def stop_canary(services: Services, visitor: Visitor, specialist: str, expected_generation: int) -> Serving:
    """Take a canary back; Aborted as in promote."""
    visitor.need_specialist(specialist)
    return services.registry.stop_canary(specialist, expected_generation)


def audit(
    services: Services, visitor: Visitor, specialist: str
) -> tuple[Answer[Audit | None], Answer[NearDuplicates | None]]:
    """What is counted of the documents, and of near-duplicates among them."""
    if specialist:
        visitor.need_specialist(specialist)
    counted: Answer[Audit | None] = ask("registry", lambda: services.auditing.audit(specialist), None)
    near: Answer[NearDuplicates | None] = ask("synthetic", lambda: services.auditing.near_duplicates(specialist), None)
    return counted, near


def erasures(services: Services, token: str) -> Answer[Page[Erasure]]:
    """A page of erasures, newest first."""
    return ask("registry", lambda: services.registry.erasures(token), Page[Erasure]())
