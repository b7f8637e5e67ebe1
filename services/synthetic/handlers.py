"""What synthetic does on each event and command, and each second."""

import hashlib
import json
import time
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from services.synthetic.domain import (
    Assignment,
    Built,
    Dataset,
    Document,
    Judgement,
    LeftOut,
    NearDuplicates,
    Repository,
    Row,
    RowLimits,
    Snapshot,
    Specialist,
    SplitWriter,
    TeacherUse,
    Text,
    fingerprint,
    is_due,
)
from services.synthetic.filters import admits, admitted, within_documents, within_share, without_boilerplate
from services.synthetic.lessons import Lessons
from services.synthetic.places import located
from services.synthetic.rows import make_rows, passages
from services.synthetic.selection import new_assignments, representatives, split_rows, within_budget
from tailor.errors import Aborted, FailedPrecondition, InvalidArgument, NotFound, TailorError
from tailor.logging import get_logger
from tailor.storage.buckets import DATASETS
from tailor.storage.protocol import ObjectStore
from tailor.storage.ref import Ref

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
    lessons: Lessons | None = None
    specialists: dict[str, Specialist] = field(default_factory=dict)
    erased: Container[str] = frozenset()
    sleep: Callable[[float], None] = time.sleep


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


def on_judgement(app: Synthetic, judgement: Judgement) -> None:
    """An expert judged drafts: keep it."""
    app.repository.keep_judgement(judgement)


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
    """Build what is due. What cannot be built now is passed over until something new comes."""
    built: list[Built] = []
    for specialist in list(app.specialists.values()):
        try:
            fill_in(app, specialist)
            if is_due(specialist.policy, app.repository.progress(specialist)):
                with app.repository.building(specialist.name) as mine:
                    # Asked again under the lock: another replica may just have built it.
                    if mine and is_due(specialist.policy, app.repository.progress(specialist)):
                        built.append(build(app, specialist))
        except TailorError as error:
            log.warning("dataset not built", specialist=specialist.name, reason=error.reason)
    return built


def build_dataset(app: Synthetic, name: str, request_id: str) -> Built:
    """Build a specialist's dataset at once; NotFound, FailedPrecondition (TOO_FEW_ROWS), Aborted while another build goes on."""
    answered = app.repository.answer(request_id) if request_id else None
    if answered is not None:
        if answered.dataset.specialist != name:
            raise InvalidArgument("REQUEST_ID_REUSED", "This request id was used for another specialist.")
        return answered
    specialist = specialist_named(app, name)
    catch_up(app, specialist)
    for _ in range(LOCK_ATTEMPTS):
        with app.repository.building(name) as mine:
            if mine:
                built = build(app, specialist)
                if request_id:
                    app.repository.keep_answer(request_id, built)
                return built
        app.sleep(LOCK_SECONDS)
    raise Aborted("BUILD_RUNNING", "Another replica builds this specialist's dataset; ask again.")


def build(app: Synthetic, specialist: Specialist) -> Built:
    """Build from everything known now; the caller holds the right to."""
    snapshot = app.repository.snapshot(specialist)
    mark = _mark(app, specialist, snapshot)
    if snapshot.dataset is not None and snapshot.fingerprint == mark:
        app.repository.finish(snapshot.dataset, position=snapshot.position, fingerprint=mark)
        return Built(snapshot.dataset, created=False)
    try:
        made = _make(app, specialist, snapshot.documents)
        _require_enough(made, app.limits)
        dataset = _write(app, specialist, snapshot, made)
    except TailorError as error:
        if not error.retryable:
            app.repository.mark_tried(specialist.name, snapshot.position)
        raise
    # What a teacher failed at is tried again by the next build, though no document changed.
    created = app.repository.finish(
        dataset, position=snapshot.position, fingerprint="" if made.use and made.use.failed else mark
    )
    log.info("dataset built", specialist=specialist.name, digest=dataset.digest, rows=len(made.train), created=created)
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
    texts = _texts(app.store, documents)
    kept = [d for d in documents if d.document_id in texts and not admits(d, texts[d.document_id], specialist.filters)]
    made = (make_rows(d, texts[d.document_id], specialist, app.limits) for d in kept)
    rows = [row for rows in made for row in rows][:limit]
    return located(rows, {document.document_id: document for document in kept}, texts)


def specialist_named(app: Synthetic, name: str) -> Specialist:
    """The specialist; NotFound."""
    if name not in app.specialists:
        raise NotFound("UNKNOWN_SPECIALIST", "There is no specialist of this name.")
    return app.specialists[name]


def _make(app: Synthetic, specialist: Specialist, documents: Sequence[Document]) -> Made:
    filters, by_id = specialist.filters, {document.document_id: document for document in documents}
    sources = {key: document.labels.source for key, document in by_id.items()}
    texts, left_out = admitted(documents, _texts(app.store, documents), filters)
    assignments = _assign(app, texts)
    alone = representatives(texts, assignments)
    kinds = {key: by_id[key].kind for key in alone}
    cleaned = without_boilerplate({key: texts[key] for key in alone}, kinds, filters.boilerplate_documents)
    chosen = within_documents(list(cleaned.texts), sources, filters.max_source_documents)
    rows = [row for key in chosen for row in make_rows(by_id[key], cleaned.texts[key], specialist, app.limits)]
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


def _texts(store: ObjectStore, documents: Sequence[Document]) -> dict[str, Text]:
    """The texts by document id. One that is no longer there was erased or superseded, and is left out."""
    texts = {}
    for document in documents:
        try:
            value = json.loads(store.get(document.text))
            texts[document.document_id] = Text(value["prompt"], value["text"])
        except NotFound:
            log.warning("text is gone", document_id=document.document_id)
        except (ValueError, KeyError, TypeError):
            raise FailedPrecondition(
                "BAD_TEXT_OBJECT", "A text in the corpus is not as its contract says.", uri=document.text.uri
            ) from None
    return texts


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
    return fingerprint(BUILDER_VERSION, specialist.system_prompt, teacher, asdict(app.limits), filters, documents)


def _write(app: Synthetic, specialist: Specialist, snapshot: Snapshot, made: Made) -> Dataset:
    """Store both splits, then the manifest, which holds no time. The same rows are the same dataset, though more was left out of it."""
    ids = sorted({key for row in (*made.train, *made.held_out) for key in row.document_ids})
    digests = {document.document_id: document.digest for document in snapshot.documents}
    splits = {"train": _entry(app.writer, made.train), "held_out": _entry(app.writer, made.held_out)}
    sources = [{"document_id": key, "digest": digests[key]} for key in ids]
    held = _held_manifest(app.store, snapshot.dataset)
    if snapshot.dataset is not None and (held.get("splits"), held.get("sources")) == (splits, sources):
        digest, ref = snapshot.dataset.digest, snapshot.dataset.manifest
    else:
        digest, ref = _write_manifest(app, specialist, made, {"splits": splits, "sources": sources})
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


def _held_manifest(store: ObjectStore, dataset: Dataset | None) -> dict[str, object]:
    """The manifest of what was built last; empty where there is none."""
    if dataset is None:
        return {}
    try:
        return dict(json.loads(store.get(dataset.manifest)))
    except NotFound:
        return {}


def _write_manifest(app: Synthetic, specialist: Specialist, made: Made, parts: Mapping[str, object]) -> tuple[str, Ref]:
    manifest = {
        "kind": "sft",
        "specialist": specialist.name,
        **parts,
        "builder": {"version": BUILDER_VERSION, **asdict(app.limits), "origins": _origins(made.train)},
        "filters": specialist.filters.settings(),
        "left_out": asdict(made.left_out),
    }
    if made.use is not None:
        manifest["teacher"] = asdict(made.use)
    data = json.dumps(manifest, sort_keys=True, indent=1).encode()
    digest = hashlib.sha256(data).hexdigest()
    return digest, app.store.put(DATASETS, f"{digest}/manifest.json", data, "application/json")


def _entry(writer: SplitWriter, rows: Sequence[Row]) -> Mapping[str, object]:
    split = writer.write(rows)
    return {"key": split.ref.key, "sha256": split.ref.sha256, "size_bytes": split.ref.size_bytes, "rows": split.rows}


def _origins(rows: Sequence[Row]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.origin] = counts.get(row.origin, 0) + 1
    return counts
