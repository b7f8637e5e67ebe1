"""What synthetic does on each event and command, and each second."""

import time
from collections.abc import Callable, Container
from dataclasses import dataclass, field

from services.synthetic.datasets import read_texts
from services.synthetic.domain import (
    Built,
    DatasetKind,
    Document,
    Judgement,
    KeptDraft,
    Row,
    RowLimits,
    Specialist,
    is_due,
)
from services.synthetic.filters import admits
from services.synthetic.judging import PairLimits
from services.synthetic.lessons import Lessons
from services.synthetic.places import located
from services.synthetic.ports import NearDuplicates, Repository, SplitWriter
from services.synthetic.preferences import Preferences, save_texts
from services.synthetic.rows import make_rows
from services.synthetic.sft import Documents
from tailor.errors import Aborted, InvalidArgument, NotFound, Reason, TailorError
from tailor.logging import get_logger
from tailor.storage.buckets import DRAFTS
from tailor.storage.policies import EXPIRY_DAYS
from tailor.storage.protocol import ObjectStore

log = get_logger(__name__)

LOCK_ATTEMPTS = 100
LOCK_SECONDS = 0.2

ListDocuments = Callable[[str], "list[Document]"]


@dataclass(frozen=True)
class Synthetic:
    """What the handlers work with. `specialists` is the table of specialists by name; `lessons` is None without a teacher;
    `erased` holds the ids of erased documents."""

    repository: Repository
    store: ObjectStore
    writer: SplitWriter
    near_duplicates: NearDuplicates
    list_documents: ListDocuments
    limits: RowLimits = field(default_factory=RowLimits)
    pair_limits: PairLimits = field(default_factory=PairLimits)
    lessons: Lessons | None = None
    specialists: dict[str, Specialist] = field(default_factory=dict)
    erased: Container[str] = frozenset()
    sleep: Callable[[float], None] = time.sleep

    @property
    def documents(self) -> Documents:
        """What datasets of documents are made with."""
        return Documents(self.repository, self.store, self.writer, self.near_duplicates, self.limits, self.lessons)

    @property
    def preferences(self) -> Preferences:
        """What preference datasets are made with."""
        return Preferences(self.repository, self.store, self.writer, self.pair_limits)


def on_document(app: Synthetic, document: Document) -> None:
    """A document passed the barrier: keep its newest version, unless it is erased."""
    if document.document_id not in app.erased:
        app.repository.keep_document(document)
        if document.draft_id:
            save_texts(app.repository, app.store, [document.draft_id])


def on_judgement(app: Synthetic, judgement: Judgement) -> None:
    """An expert judged drafts: keep it, and the texts of the drafts."""
    app.repository.keep_judgement(judgement)
    save_texts(app.repository, app.store, judgement.ranking)


def on_draft(app: Synthetic, draft: KeptDraft) -> None:
    """The text of a draft is kept: remember where, and keep it for longer where the draft was judged or finished already."""
    app.repository.keep_draft(draft)
    if app.repository.is_wanted(draft.draft_id):
        save_texts(app.repository, app.store, [draft.draft_id])


def on_specialist(app: Synthetic, specialist: Specialist) -> None:
    """A specialist is new or changed. Its earlier documents are read by `fill_in`, before anything is built for it."""
    known = app.specialists.get(specialist.name)
    if known is None or specialist.revision > known.revision:
        app.specialists[specialist.name] = specialist


def fill_in(app: Synthetic, specialist: Specialist) -> None:
    """Read the documents that came before the specialist's newest revision from the registry, once; Unavailable without it."""
    if app.repository.filled_revision(specialist.name) < specialist.revision:
        catch_up(app, specialist)


def catch_up(app: Synthetic, specialist: Specialist) -> None:
    """Read all of the specialist's documents from the registry: what its caller sees there may not have come by its topic yet."""
    for document in app.list_documents(specialist.name):
        on_document(app, document)
    app.repository.set_filled(specialist.name, specialist.revision)


def tick(app: Synthetic) -> list[Built]:
    """Build what is due, and forget drafts whose texts have expired. What cannot be built now is passed over until something new comes."""
    built: list[Built] = []
    for specialist in list(app.specialists.values()):
        kinds = DatasetKind if specialist.learns_preferences else (DatasetKind.SFT,)
        for kind in kinds:
            try:
                fill_in(app, specialist)
                built += _build_if_due(app, specialist, kind)
            except TailorError as error:
                log.warning("dataset not built", specialist=specialist.name, kind=kind.value, reason=error.reason)
    app.repository.forget_drafts(EXPIRY_DAYS[DRAFTS])
    return built


def _build_if_due(app: Synthetic, specialist: Specialist, kind: DatasetKind) -> list[Built]:
    if not is_due(specialist.policy, app.repository.progress(specialist, kind)):
        return []
    with app.repository.building(specialist.name) as mine:
        # Asked again under the lock: another replica may just have built it.
        if mine and is_due(specialist.policy, app.repository.progress(specialist, kind)):
            return [build(app, specialist, kind)]
    return []


def build_dataset(app: Synthetic, name: str, request_id: str, kind: DatasetKind = DatasetKind.SFT) -> Built:
    """Build a specialist's dataset at once; NotFound, FailedPrecondition (TOO_FEW_ROWS), Aborted while another build goes on."""
    answered = app.repository.answer(request_id) if request_id else None
    if answered is not None:
        if (answered.dataset.specialist, answered.dataset.kind) != (name, kind):
            raise InvalidArgument(Reason.REQUEST_ID_REUSED, "This request id was used for another specialist or kind.")
        return answered
    specialist = specialist_named(app, name)
    catch_up(app, specialist)
    for _ in range(LOCK_ATTEMPTS):
        with app.repository.building(name) as mine:
            if mine:
                built = build(app, specialist, kind)
                if request_id:
                    app.repository.keep_answer(request_id, built)
                return built
        app.sleep(LOCK_SECONDS)
    raise Aborted(Reason.BUILD_RUNNING, "Another replica builds this specialist's dataset; ask again.")


def build(app: Synthetic, specialist: Specialist, kind: DatasetKind) -> Built:
    """Build from everything known now; the caller holds the right to."""
    snapshot = app.repository.snapshot(specialist, kind)
    maker = app.documents if kind is DatasetKind.SFT else app.preferences
    mark = maker.mark_of(specialist, snapshot)
    if snapshot.dataset is not None and snapshot.fingerprint == mark:
        app.repository.finish(snapshot.dataset, position=snapshot.position, fingerprint=mark)
        return Built(snapshot.dataset, created=False)
    try:
        dataset, whole = maker.make_dataset(specialist, snapshot)
    except TailorError as error:
        if not error.retryable:
            app.repository.mark_tried(specialist.name, kind, snapshot.position)
        raise
    # What a teacher failed at is tried again by the next build, though no document changed.
    created = app.repository.finish(dataset, position=snapshot.position, fingerprint=mark if whole else "")
    log.info(
        "dataset built",
        specialist=specialist.name,
        kind=kind.value,
        digest=dataset.digest,
        rows=dataset.train_rows,
        created=created,
    )
    return Built(dataset, created)


def preview_rows(app: Synthetic, name: str, document_id: str, limit: int) -> list[Row]:
    """Rows that one document, or the newest ones, would make from their own structure; NotFound. Boilerplate and the caps on a source
    are told from all documents, when a dataset is built."""
    specialist = specialist_named(app, name)
    if document_id:
        document = app.repository.document(document_id)
        if document is None or not specialist.selection.admits(document.labels):
            raise NotFound(Reason.UNKNOWN_DOCUMENT, "The specialist selects no such document.")
        documents = [document]
    else:
        documents = app.repository.newest(specialist, limit)
    texts = read_texts(app.store, documents)
    kept = [d for d in documents if d.document_id in texts and not admits(d, texts[d.document_id], specialist.filters)]
    made = (make_rows(d, texts[d.document_id], specialist, app.limits) for d in kept)
    rows = [row for rows in made for row in rows][:limit]
    return located(rows, {document.document_id: document for document in kept}, texts)


def specialist_named(app: Synthetic, name: str) -> Specialist:
    """The specialist; NotFound."""
    if name not in app.specialists:
        raise NotFound(Reason.UNKNOWN_SPECIALIST, "There is no specialist of this name.")
    return app.specialists[name]
