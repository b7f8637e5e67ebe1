"""One function per event, command and job of synthetic."""

import itertools
import time
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from services.synthetic.adapters.admitted_origins import SqlOrigins
from services.synthetic.adapters.corpus import SqlCorpora
from services.synthetic.adapters.sql import SqlRepository
from services.synthetic.building.workers import start_workers
from services.synthetic.corpus import StoredFile
from services.synthetic.datasets import read_texts
from services.synthetic.document_datasets import DocumentDatasets, StartWorkers
from services.synthetic.domain import (
    BuildLimits,
    BuildProgress,
    BuildResult,
    Dataset,
    Document,
    Judgement,
    KeptDraft,
    LastBuild,
    OriginKind,
    OverRedaction,
    Row,
    Specialist,
    SyncCursor,
    find_specialist,
    fingerprint,
    is_due,
)
from services.synthetic.filters import rejecting_filter
from services.synthetic.near_duplicates.preparer import DocumentPreparer
from services.synthetic.ports import (
    CheckResidual,
    ExtraRows,
    ListDocuments,
    MeasureOverRedaction,
    Tokenizers,
)
from services.synthetic.preference_datasets import PreferenceDatasets, delete_drawn_text, save_texts
from services.synthetic.rows.document_rows import make_rows
from services.synthetic.rows.preference_rows import PairLimits
from tailor.errors import Aborted, InvalidArgument, NotFound, Reason, TailorError
from tailor.jobs import HeldJob
from tailor.logging import get_logger
from tailor.storage.buckets import DATASETS, DRAFTS
from tailor.storage.policies import EXPIRY_DAYS
from tailor.storage.protocol import ObjectStore
from tailor.values import DatasetKind, Labels

log = get_logger(__name__)

LOCK_ATTEMPTS = 100
LOCK_SECONDS = 0.2

T = TypeVar("T")


@dataclass(frozen=True)
class Synthetic:
    """The collaborators of the handlers.

    `specialists` are all specialists by name, `deleted` the last revisions of deleted ones, `erased` the ids of erased documents. `idle`
    has, for each specialist and kind that had nothing new at the last look, its revision and the newest position of all items then.
    """

    repository: SqlRepository
    origins: SqlOrigins
    corpora: SqlCorpora
    store: ObjectStore
    tokenizers: Tokenizers
    preparer: DocumentPreparer
    list_documents: ListDocuments
    check_residual: CheckResidual = lambda selection: None
    measure_over_redaction: MeasureOverRedaction = lambda document_ids: OverRedaction()
    limits: BuildLimits = field(default_factory=BuildLimits)
    pair_limits: PairLimits = field(default_factory=PairLimits)
    extra_rows: Sequence[ExtraRows] = ()
    start_workers: StartWorkers = start_workers
    specialists: dict[str, Specialist] = field(default_factory=dict)
    deleted: dict[str, int] = field(default_factory=dict)
    idle: dict[tuple[str, DatasetKind], tuple[int, int]] = field(default_factory=dict)
    erased: Container[str] = frozenset()
    sleep: Callable[[float], None] = time.sleep


def on_document(app: Synthetic, document: Document) -> None:
    """Keep the newest version of an anonymised document, unless it is erased. Idempotent."""
    if document.document_id not in app.erased:
        app.repository.keep_document(document)
        if document.draft_id:
            save_texts(app.repository, app.store, [document.draft_id])


def on_judgement(app: Synthetic, judgement: Judgement) -> None:
    """Keep a judgement, and save the texts of its drafts. Idempotent."""
    app.repository.keep_judgement(judgement)
    save_texts(app.repository, app.store, judgement.drafts)


def on_draft(app: Synthetic, draft: KeptDraft) -> None:
    """Keep a draft whose text is stored, and save the text if the draft was already judged or finished. Idempotent.

    An edited draft that was erased is ignored, and so is one whose prompt was drawn from an erased document; its text is deleted.
    """
    if draft.text_id in app.erased:
        return
    if any(document_id in app.erased for document_id in draft.drawn_from):
        delete_drawn_text(app.store, draft.text.sha256)
        return
    app.repository.keep_draft(draft)
    if app.repository.is_wanted(draft.draft_id):
        save_texts(app.repository, app.store, [draft.draft_id])


def on_specialist(app: Synthetic, specialist: Specialist) -> None:
    """Apply a new or changed specialist. `fill_in` reads its earlier documents before anything is built for it."""
    known = app.specialists.get(specialist.name)
    newest = known.revision if known else app.deleted.get(specialist.name, 0)
    if specialist.revision > newest:
        app.specialists[specialist.name] = specialist


def forget_specialist(app: Synthetic, name: str, revision: int) -> None:
    """Build nothing more for a deleted specialist. Its documents and datasets stay. Older revisions are ignored from now on."""
    known = app.specialists.get(name)
    if known is None or revision > known.revision:
        app.specialists.pop(name, None)
        app.deleted[name] = max(revision, app.deleted.get(name, 0))


def fill_in(app: Synthetic, specialist: Specialist) -> None:
    """Read the documents before the specialist's newest revision from the registry, once. Raises Unavailable without the registry."""
    if app.repository.sync_cursor(specialist.name).revision < specialist.revision:
        catch_up(app, specialist)


def catch_up(app: Synthetic, specialist: Specialist) -> None:
    """Read the specialist's documents from the registry, because a caller may see some that have not arrived by Kafka yet.

    Only those that changed since the last time are read, unless the specialist did. A process that is killed meanwhile reads them again.
    """
    synced = app.repository.sync_cursor(specialist.name)
    cursor = synced.cursor if synced.revision == specialist.revision else 0
    for page in app.list_documents(specialist.name, cursor):
        cursor = page.cursor
        for document in app.repository.unknown_documents(page.documents):
            on_document(app, document)
    app.repository.set_sync_cursor(specialist.name, SyncCursor(specialist.revision, cursor))


def schedule(app: Synthetic, job: HeldJob) -> None:
    """Add a job for each specialist with a dataset that is due (a `jobs.Handle`), and forget drafts whose texts have expired."""
    app.repository.add_builds(job, find_due(app))
    app.repository.forget_drafts(EXPIRY_DAYS[DRAFTS])


def find_due(app: Synthetic) -> list[str]:
    """The specialists with a dataset that is due.

    Those for which nothing can be due are not looked at until another document or judgement arrives.
    """
    newest = app.repository.newest_position()
    specialists = list(app.specialists.values())
    due = [it.name for it in specialists for kind in _kinds(it) if _has_due(app, it, kind, newest)]
    return list(dict.fromkeys(due))


def _kinds(specialist: Specialist) -> Iterable[DatasetKind]:
    return DatasetKind if specialist.learns_preferences else (DatasetKind.SFT,)


def _has_due(app: Synthetic, specialist: Specialist, kind: DatasetKind, newest: int) -> bool:
    if app.idle.get((specialist.name, kind)) == (specialist.revision, newest):
        return False
    try:
        fill_in(app, specialist)
        progress = app.repository.progress(specialist, kind)
    except TailorError as error:
        log.warning("dataset not built", specialist=specialist.name, kind=kind.value, reason=error.reason)
        return False
    if not _may_become_due(specialist, progress):
        app.idle[specialist.name, kind] = (specialist.revision, newest)
    return is_due(specialist.policy, progress)


def run_builds(app: Synthetic, job: HeldJob) -> None:
    """Build the datasets of a specialist, the job's key, that are due (a `jobs.Handle`). Blocks."""
    build_due(app, job.key)


def build_due(app: Synthetic, name: str) -> list[BuildResult]:
    """Build the specialist's datasets that are due. A refused build is tried again when something new arrives. Blocks."""
    specialist = app.specialists.get(name)
    results = [_build_if_due(app, specialist, kind) for kind in _kinds(specialist)] if specialist else []
    return [result for result in results if result is not None]


def _build_if_due(app: Synthetic, specialist: Specialist, kind: DatasetKind) -> BuildResult | None:
    with app.repository.building(specialist.name) as is_held:
        # Another call may just have built it.
        if not is_held or not is_due(specialist.policy, app.repository.progress(specialist, kind)):
            return None
        try:
            return build(app, specialist, kind)
        except TailorError as error:
            if error.retryable:
                raise
            log.warning("dataset not built", specialist=specialist.name, kind=kind.value, reason=error.reason)
            return None


def _may_become_due(specialist: Specialist, progress: BuildProgress) -> bool:
    """True if time alone can make a build due."""
    enough = 0 < specialist.policy.min_new_items <= progress.new_items
    return enough and progress.newest_position > progress.tried_position


def build_dataset(
    app: Synthetic, name: str, request_id: str, kind: DatasetKind = DatasetKind.SFT, *, again: bool = False
) -> BuildResult:
    """Build a specialist's dataset at once, `again` also from what did not change. Blocks. Idempotent by request id.

    Raises NotFound, FailedPrecondition (TOO_FEW_ROWS), or Aborted (BUILD_RUNNING) while another replica builds for too long.
    """
    answered = app.repository.answer(request_id) if request_id else None
    if answered is not None:
        if (answered.dataset.specialist, answered.dataset.kind) != (name, kind):
            raise InvalidArgument(
                Reason.REQUEST_ID_REUSED,
                "This request id was already used for another specialist or kind. Use a new one.",
            )
        return answered
    specialist = find_specialist(app.specialists, name)
    catch_up(app, specialist)

    def build_and_answer() -> BuildResult:
        result = build(app, specialist, kind, again=again)
        if request_id:
            app.repository.keep_answer(request_id, result)
        return result

    return run_exclusively(app, name, build_and_answer)


def run_exclusively(app: Synthetic, specialist: str, work: Callable[[], T]) -> T:
    """Wait for the specialist's build lock, and hold it while `work` runs. Raises Aborted (BUILD_RUNNING) after about 20 seconds."""
    for _ in range(LOCK_ATTEMPTS):
        with app.repository.building(specialist) as is_held:
            if is_held:
                return work()
        app.sleep(LOCK_SECONDS)
    raise Aborted(Reason.BUILD_RUNNING, "Another replica is building this specialist's dataset. Retry.")


def build(app: Synthetic, specialist: Specialist, kind: DatasetKind, *, again: bool = False) -> BuildResult:
    """Build from everything known now, `again` without anything that earlier builds stored. The caller must hold the build lock.

    Raises FailedPrecondition (RESIDUAL_UNKNOWN, RESIDUAL_TOO_HIGH) if too much may be left in the specialist's documents.
    """
    app.origins.admit_first(specialist)
    last = app.repository.last_build(specialist.name, kind)
    if again:
        last = replace(last, fingerprint="")
    try:
        app.check_residual(specialist.selection)
        if kind is DatasetKind.SFT:
            dataset, files, fingerprint = _make_documents(app, specialist, last, again=again)
        else:
            dataset, files, fingerprint = _make_pairs(app, specialist, last)
    except TailorError as error:
        if not error.retryable:
            app.repository.mark_tried(specialist.name, kind, last.position)
        raise
    is_new = app.repository.finish(dataset, files, position=last.position, fingerprint=fingerprint)
    log.info(
        "dataset built",
        specialist=specialist.name,
        kind=kind.value,
        digest=dataset.digest,
        rows=dataset.train_rows,
        created=is_new,
    )
    return BuildResult(dataset, is_new)


def _make_documents(
    app: Synthetic, specialist: Specialist, last: LastBuild, *, again: bool
) -> tuple[Dataset, tuple[StoredFile, ...], str]:
    counter = app.tokenizers.for_base(specialist.base)
    app.preparer.prepare(specialist.selection)
    datasets = DocumentDatasets(app.store, app.limits, app.extra_rows, app.start_workers, app.measure_over_redaction)
    with app.corpora.open(specialist) as corpus:
        for key in corpus.forget_segments([]) if again else ():
            app.store.delete(DATASETS, key)
        return datasets.make_dataset(specialist, corpus, counter, last)


def _make_pairs(app: Synthetic, specialist: Specialist, last: LastBuild) -> tuple[Dataset, tuple[StoredFile, ...], str]:
    counter = app.tokenizers.for_base(specialist.base)
    datasets = PreferenceDatasets(app.repository, app.store, app.pair_limits)
    return datasets.make_dataset(specialist, app.repository.pair_evidence(specialist), counter, last)


def read_build_states(app: Synthetic, name: str) -> Iterator[tuple[Specialist, DatasetKind, BuildProgress]]:
    """How far the next dataset of each kind is. Raises NotFound (UNKNOWN_SPECIALIST)."""
    specialist = find_specialist(app.specialists, name)
    for kind in DatasetKind:
        yield specialist, kind, app.repository.progress(specialist, kind)


def admit_origin(app: Synthetic, name: str, kind: OriginKind, origin: str, admitted_by: str) -> None:
    """Let the specialist learn from an origin. Raises NotFound (UNKNOWN_SPECIALIST, UNKNOWN_ORIGIN)."""
    if not app.origins.admit(find_specialist(app.specialists, name), kind, origin, admitted_by):
        raise NotFound(Reason.UNKNOWN_ORIGIN, "The specialist selects no document of this origin. List its origins.")
    log.info("origin admitted", specialist=name, kind=kind.value, origin=origin, key_id=admitted_by)


def preview_rows(
    app: Synthetic, name: str, document_id: str, limit: int, *, new_only: bool = False
) -> list[tuple[Row, Labels]]:
    """Rows from the structure of one document, or drawn from all that train, each with its document's labels. Raises NotFound.

    Nothing is stored. `new_only` draws from what arrived since the last build, also from origins that nobody has admitted. A fixed hash
    draws the documents and a row of each, then a second one, and so on. Boilerplate and limits per source depend on all documents, so they
    apply only when a dataset is built.
    """
    specialist = find_specialist(app.specialists, name)
    if document_id:
        document = app.repository.documents.find(document_id=document_id)
        if document is None or not specialist.selection.admits(document.labels):
            raise NotFound(Reason.UNKNOWN_DOCUMENT, "The specialist does not select a document with this id.")
        documents = [document]
    else:
        documents = app.repository.draw_documents(specialist, limit, new_only=new_only)
    texts = read_texts(app.store, documents)
    admitted = {
        document.document_id: document
        for document in documents
        if document.document_id in texts
        and not rejecting_filter(document, texts[document.document_id], specialist.filters)
    }
    counter = app.tokenizers.for_base(specialist.base)
    row_sets = [make_rows(document, texts[key], specialist, counter).rows for key, document in admitted.items()]
    if not document_id:
        row_sets = [tuple(sorted(rows, key=lambda row: fingerprint("preview", row.row_id))) for rows in row_sets]
    ranks = itertools.zip_longest(*row_sets)
    drawn = [row for rank in ranks for row in rank if row is not None][:limit]
    return [(row, admitted[row.document_ids[0]].labels) for row in drawn]
