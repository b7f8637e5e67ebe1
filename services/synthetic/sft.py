"""Datasets of documents: from the texts of the corpus to both splits."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from services.synthetic.datasets import entry, origins, read_texts, write_manifest
from services.synthetic.domain import (
    Assignment,
    Dataset,
    DatasetKind,
    LeftOut,
    Row,
    RowLimits,
    Snapshot,
    Specialist,
    TeacherUse,
    Text,
    fingerprint,
)
from services.synthetic.filters import admitted, within_documents, within_share, without_boilerplate
from services.synthetic.lessons import Lessons
from services.synthetic.places import located
from services.synthetic.ports import NearDuplicates, Repository, SplitWriter
from services.synthetic.preferences import deliverables, drafts_of
from services.synthetic.rows import finished_row, make_rows, passages
from services.synthetic.selection import new_assignments, representatives, split_rows, within_budget
from tailor.errors import FailedPrecondition, Reason
from tailor.storage.protocol import ObjectStore

# Raised whenever the same documents would make other rows.
BUILDER_VERSION = 2


@dataclass(frozen=True)
class Documents:
    """What datasets of documents are made with; `lessons` is None without a teacher."""

    repository: Repository
    store: ObjectStore
    writer: SplitWriter
    near_duplicates: NearDuplicates
    limits: RowLimits
    lessons: Lessons | None

    def mark_of(self, specialist: Specialist, snapshot: Snapshot) -> str:
        """What the dataset depends on, in short."""
        teacher = self.lessons.model if self.lessons is not None and specialist.use_teacher else ""
        documents = [
            (one.document_id, one.text.sha256, one.language, one.labels.source, one.spans) for one in snapshot.documents
        ]
        filters = specialist.filters.settings()
        finished = [(one.document_id, snapshot.drafts[one.draft_id].text.sha256) for one in deliverables(snapshot)]
        return fingerprint(
            BUILDER_VERSION, specialist.system_prompt, teacher, asdict(self.limits), filters, documents, finished
        )

    def make_dataset(self, specialist: Specialist, snapshot: Snapshot) -> tuple[Dataset, bool]:
        """The dataset, and whether a teacher did all that it was asked for; FailedPrecondition (TOO_FEW_ROWS)."""
        made = _make(self, specialist, snapshot)
        _require_enough(made, self.limits)
        return _write(self, specialist, snapshot, made), not (made.use and made.use.failed)


@dataclass(frozen=True)
class Made:
    """Rows of both splits, by id; what a teacher was asked for; documents left out as near-duplicates, and by the filters."""

    train: Sequence[Row]
    held_out: Sequence[Row]
    use: TeacherUse | None
    near_duplicates: int
    left_out: LeftOut


def _make(parts: Documents, specialist: Specialist, snapshot: Snapshot) -> Made:
    documents, drafts = snapshot.documents, drafts_of(parts.store, snapshot)
    filters, by_id = specialist.filters, {document.document_id: document for document in documents}
    sources = {key: document.labels.source for key, document in by_id.items()}
    texts, left_out = admitted(documents, read_texts(parts.store, documents), filters)
    assignments = _assign(parts, texts)
    alone = representatives(texts, assignments)
    kinds = {key: by_id[key].kind for key in alone}
    cleaned = without_boilerplate({key: texts[key] for key in alone}, kinds, filters.boilerplate_documents)
    chosen = within_documents(list(cleaned.texts), sources, filters.max_source_documents)
    rows = [row for key in chosen for row in make_rows(by_id[key], cleaned.texts[key], specialist, parts.limits)]
    # A finished text is a person's own, as an example is: boilerplate stays in it.
    rows += [
        row
        for key in chosen
        if key in drafts
        for row in finished_row(by_id[key], texts[key], drafts[key], specialist, parts.limits)
    ]
    use = None
    if parts.lessons is not None and specialist.use_teacher:
        asked = [(key, passage) for key in chosen for passage in passages(cleaned.texts[key], parts.limits)]
        taught, use = parts.lessons.rows(asked, specialist, parts.limits)
        rows += taught
    train, held_out = split_rows(rows, assignments)
    fair = within_share(train, sources, filters.max_source_percent)
    fitting = within_budget(fair, parts.limits.max_tokens)
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


def _assign(parts: Documents, texts: Mapping[str, Text]) -> dict[str, Assignment]:
    """The assignment of every text, those that have none made now."""
    known = parts.repository.assignments(list(texts))
    groups = parts.near_duplicates.groups({key: f"{text.prompt or ''}\n{text.text}" for key, text in texts.items()})
    parts.repository.assign(new_assignments(groups, known, parts.limits.held_out_percent).values())
    return parts.repository.assignments(list(texts))


def _require_enough(made: Made, limits: RowLimits) -> None:
    train, held_out = len(made.train), len(made.held_out)
    if train < limits.min_train_rows or held_out < limits.min_held_out_rows:
        raise FailedPrecondition(
            Reason.TOO_FEW_ROWS,
            f"The documents make {train} rows to train on and {held_out} held out; "
            f"{limits.min_train_rows} and {limits.min_held_out_rows} are needed. Publish more documents.",
        )


def _write(parts: Documents, specialist: Specialist, snapshot: Snapshot, made: Made) -> Dataset:
    """Store both splits, then the manifest. The same rows are the same dataset, though more was left out of it."""
    ids = sorted({key for row in (*made.train, *made.held_out) for key in row.document_ids})
    digests = {document.document_id: document.digest for document in snapshot.documents}
    splits = {"train": entry(parts.writer.write(made.train)), "held_out": entry(parts.writer.write(made.held_out))}
    same = {"splits": splits, "sources": [{"document_id": key, "digest": digests[key]} for key in ids]}
    digest, ref = write_manifest(parts.store, snapshot.dataset, same, _rest_of_manifest(parts, specialist, made))
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


def _rest_of_manifest(parts: Documents, specialist: Specialist, made: Made) -> dict[str, object]:
    rest: dict[str, object] = {
        "kind": DatasetKind.SFT.value,
        "specialist": specialist.name,
        "builder": {"version": BUILDER_VERSION, **asdict(parts.limits), "origins": origins(made.train)},
        "filters": specialist.filters.settings(),
        "left_out": asdict(made.left_out),
    }
    return rest if made.use is None else rest | {"teacher": asdict(made.use)}
