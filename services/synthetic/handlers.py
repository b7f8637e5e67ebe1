"""What synthetic does on each event and command, and each second."""

import time
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from services.synthetic import preferences
from services.synthetic.datasets import entry, origins, read_texts, write_manifest
from services.synthetic.domain import (
    Assignment,
    Built,
    Dataset,
    DatasetKind,
    Document,
    Judgement,
    KeptDraft,
    LeftOut,
    Row,
    RowLimits,
    Snapshot,
    Specialist,
    TeacherUse,
    Text,
    fingerprint,
    is_due,
)
from services.synthetic.filters import admits, admitted, within_documents, within_share, without_boilerplate
from services.synthetic.judging import PairLimits
from services.synthetic.lessons import Lessons
from services.synthetic.places import located
from services.synthetic.ports import NearDuplicates, Repository, SplitWriter
from services.synthetic.preferences import Preferences, save_texts
from services.synthetic.rows import finished_row, make_rows, passages
from services.synthetic.selection import new_assignments, representatives, split_rows, within_budget
from tailor.errors import Aborted, FailedPrecondition, InvalidArgument, NotFound, TailorError
from tailor.logging import get_logger
from tailor.storage.buckets import DRAFTS
from tailor.storage.policies import EXPIRY_DAYS
from tailor.storage.protocol import ObjectStore

log = get_logger(__name__)

# Raised whenever the same documents would make other rows.
BUILDER_VERSION = 2
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
    def preferences(self) -> Preferences:
        """What preference datasets are made with."""
        return Preferences(self.repository, self.store, self.writer, self.pair_limits)


@dataclass(frozen=True)
class Made:
    """Rows of both splits, by id; what a teacher was asked for; documents left out as near-duplicates, and by the filters."""

    train: Sequence[Row]
    held_out: Sequence[Row]
    use: TeacherUse | None
    near_duplicates: int
    left_out: LeftOut


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
            raise InvalidArgument("REQUEST_ID_REUSED", "This request id was used for another specialist or kind.")
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
    raise Aborted("BUILD_RUNNING", "Another replica builds this specialist's dataset; ask again.")


def build(app: Synthetic, specialist: Specialist, kind: DatasetKind) -> Built:
    """Build from everything known now; the caller holds the right to."""
    snapshot = app.repository.snapshot(specialist, kind)
    of_documents = kind is DatasetKind.SFT
    mark = (
        _mark(app, specialist, snapshot) if of_documents else preferences.mark_of(app.preferences, specialist, snapshot)
    )
    if snapshot.dataset is not None and snapshot.fingerprint == mark:
        app.repository.finish(snapshot.dataset, position=snapshot.position, fingerprint=mark)
        return Built(snapshot.dataset, created=False)
    try:
        if of_documents:
            dataset, whole = _of_documents(app, specialist, snapshot)
        else:
            dataset, whole = preferences.make_dataset(app.preferences, specialist, snapshot), True
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
            raise NotFound("UNKNOWN_DOCUMENT", "The specialist selects no such document.")
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
        raise NotFound("UNKNOWN_SPECIALIST", "There is no specialist of this name.")
    return app.specialists[name]


def _of_documents(app: Synthetic, specialist: Specialist, snapshot: Snapshot) -> tuple[Dataset, bool]:
    """The dataset, and whether a teacher did all that it was asked for."""
    made = _make(app, specialist, snapshot)
    _require_enough(made, app.limits)
    return _write(app, specialist, snapshot, made), not (made.use and made.use.failed)


def _make(app: Synthetic, specialist: Specialist, snapshot: Snapshot) -> Made:
    documents, drafts = snapshot.documents, preferences.drafts_of(app.store, snapshot)
    filters, by_id = specialist.filters, {document.document_id: document for document in documents}
    sources = {key: document.labels.source for key, document in by_id.items()}
    texts, left_out = admitted(documents, read_texts(app.store, documents), filters)
    assignments = _assign(app, texts)
    alone = representatives(texts, assignments)
    kinds = {key: by_id[key].kind for key in alone}
    cleaned = without_boilerplate({key: texts[key] for key in alone}, kinds, filters.boilerplate_documents)
    chosen = within_documents(list(cleaned.texts), sources, filters.max_source_documents)
    rows = [row for key in chosen for row in make_rows(by_id[key], cleaned.texts[key], specialist, app.limits)]
    # A finished text is a person's own, as an example is: boilerplate stays in it.
    rows += [
        row
        for key in chosen
        if key in drafts
        for row in finished_row(by_id[key], texts[key], drafts[key], specialist, app.limits)
    ]
    use = None
    if app.lessons is not None and specialist.use_teacher:
        asked = [(key, passage) for key in chosen for passage in passages(cleaned.texts[key], app.limits)]
        taught, use = app.lessons.rows(asked, specialist, app.limits)
        rows += taught
    train, held_out = split_rows(rows, assignments)
    fair = within_share(train, sources, filters.max_source_percent)
    fitting = within_budget(fair, app.limits.max_tokens)
    kept = within_share(fitting, sources, filters.max_source_percent)
    left_out = replace(
        left_out,
        boilerplate=cleaned.emptied,
        source=len(cleaned.texts) - len(chosen),
        boilerplate_parts=cleaned.parts,
        source_rows=len(train) - len(fair) + len(fitting) - len(kept),
    )
    train, held_out = located(kept, by_id, texts), located(held_out, by_id, texts)
    return Made(train, held_out, use, len(texts) - len(alone), left_out)


def _assign(app: Synthetic, texts: Mapping[str, Text]) -> dict[str, Assignment]:
    """The assignment of every text, those that have none made now."""
    known = app.repository.assignments(list(texts))
    groups = app.near_duplicates.groups({key: f"{text.prompt or ''}\n{text.text}" for key, text in texts.items()})
    app.repository.assign(new_assignments(groups, known, app.limits.held_out_percent).values())
    return app.repository.assignments(list(texts))


def _require_enough(made: Made, limits: RowLimits) -> None:
    train, held_out = len(made.train), len(made.held_out)
    if train < limits.min_train_rows or held_out < limits.min_held_out_rows:
        raise FailedPrecondition(
            "TOO_FEW_ROWS",
            f"The documents make {train} rows to train on and {held_out} held out; "
            f"{limits.min_train_rows} and {limits.min_held_out_rows} are needed. Publish more documents.",
        )


def _mark(app: Synthetic, specialist: Specialist, snapshot: Snapshot) -> str:
    teacher = app.lessons.model if app.lessons is not None and specialist.use_teacher else ""
    documents = [
        (one.document_id, one.text.sha256, one.language, one.labels.source, one.spans) for one in snapshot.documents
    ]
    filters = specialist.filters.settings()
    finished = [
        (one.document_id, snapshot.drafts[one.draft_id].text.sha256) for one in preferences.deliverables(snapshot)
    ]
    return fingerprint(
        BUILDER_VERSION, specialist.system_prompt, teacher, asdict(app.limits), filters, documents, finished
    )


def _write(app: Synthetic, specialist: Specialist, snapshot: Snapshot, made: Made) -> Dataset:
    """Store both splits, then the manifest. The same rows are the same dataset, though more was left out of it."""
    ids = sorted({key for row in (*made.train, *made.held_out) for key in row.document_ids})
    digests = {document.document_id: document.digest for document in snapshot.documents}
    splits = {"train": entry(app.writer.write(made.train)), "held_out": entry(app.writer.write(made.held_out))}
    same = {"splits": splits, "sources": [{"document_id": key, "digest": digests[key]} for key in ids]}
    digest, ref = write_manifest(app.store, snapshot.dataset, same, _rest_of_manifest(app, specialist, made))
    return Dataset(
        digest=digest,
        specialist=specialist.name,
        base=specialist.base,
        recipe=specialist.recipe,
        manifest=ref,
        train_rows=len(made.train),
        held_out_rows=len(made.held_out),
        document_ids=tuple(ids),
        near_duplicates=made.near_duplicates,
        left_out=made.left_out,
    )


def _rest_of_manifest(app: Synthetic, specialist: Specialist, made: Made) -> dict[str, object]:
    rest: dict[str, object] = {
        "kind": DatasetKind.SFT.value,
        "specialist": specialist.name,
        "builder": {"version": BUILDER_VERSION, **asdict(app.limits), "origins": origins(made.train)},
        "filters": specialist.filters.settings(),
        "left_out": asdict(made.left_out),
    }
    return rest if made.use is None else rest | {"teacher": asdict(made.use)}
