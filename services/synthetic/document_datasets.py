"""Datasets of documents: from the corpus's texts to both splits."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from services.synthetic.datasets import count_origins, manifest_entry, read_texts, write_manifest
from services.synthetic.domain import (
    Assignment,
    CorpusSnapshot,
    Dataset,
    LeftOut,
    Row,
    RowLimits,
    Specialist,
    TeacherUse,
    Text,
    fingerprint,
)
from services.synthetic.filters import (
    admit_texts,
    filter_settings,
    limit_source_documents,
    limit_source_share,
    remove_boilerplate,
)
from services.synthetic.ports import Builds, NearDuplicates, SplitWriter
from services.synthetic.preference_datasets import list_deliverables, read_deliverable_drafts
from services.synthetic.rows.document_rows import deliverable_rows, make_rows
from services.synthetic.rows.places import add_spans
from services.synthetic.selection import assign_clusters, choose_representatives, fit_budget, split_rows
from tailor.errors import FailedPrecondition, Reason
from tailor.storage.protocol import ObjectStore
from tailor.words import DatasetKind

# Increase it whenever the same documents would give other rows.
BUILDER_VERSION = 2


@dataclass(frozen=True)
class DocumentDatasets:
    """Makes datasets of documents."""

    builds: Builds
    store: ObjectStore
    writer: SplitWriter
    near_duplicates: NearDuplicates
    limits: RowLimits

    def fingerprint(self, specialist: Specialist, snapshot: CorpusSnapshot) -> str:
        """A digest of everything that the dataset depends on."""
        documents = [
            (document.document_id, document.text.sha256, document.language, document.labels.source, document.spans)
            for document in snapshot.documents
        ]
        filters = filter_settings(specialist.filters)
        finished = [
            (deliverable.document_id, snapshot.drafts[deliverable.draft_id].text.sha256)
            for deliverable in list_deliverables(snapshot)
        ]
        return fingerprint(BUILDER_VERSION, specialist.system_prompt, asdict(self.limits), filters, documents, finished)

    def make_dataset(self, specialist: Specialist, snapshot: CorpusSnapshot) -> tuple[Dataset, bool]:
        """Make and store the dataset. Blocks.

        Returns it, and True unless a teacher failed to answer. Raises FailedPrecondition (TOO_FEW_ROWS).
        """
        rows = _make_rows(self, specialist, snapshot)
        _require_enough(rows, self.limits)
        return _write(self, specialist, snapshot, rows), not (rows.use and rows.use.failed)


@dataclass(frozen=True)
class DocumentRows:
    """Rows of both splits, sorted by id, with the use of a teacher, and counts of near-duplicates and of what the filters removed."""

    train: Sequence[Row]
    held_out: Sequence[Row]
    use: TeacherUse | None
    near_duplicates: int
    left_out: LeftOut


def _make_rows(parts: DocumentDatasets, specialist: Specialist, snapshot: CorpusSnapshot) -> DocumentRows:
    documents, drafts = snapshot.documents, read_deliverable_drafts(parts.store, snapshot)
    filters, by_id = specialist.filters, {document.document_id: document for document in documents}
    sources = {key: document.labels.source for key, document in by_id.items()}
    texts, left_out = admit_texts(documents, read_texts(parts.store, documents), filters)
    assignments = _assign(parts, texts)
    distinct = choose_representatives(texts, assignments)
    kinds = {key: by_id[key].kind for key in distinct}
    cleaned = remove_boilerplate({key: texts[key] for key in distinct}, kinds, filters.boilerplate_documents)
    chosen = limit_source_documents(list(cleaned.texts), sources, filters.max_source_documents)
    rows = [row for key in chosen for row in make_rows(by_id[key], cleaned.texts[key], specialist, parts.limits)]
    # A deliverable, like an example, is used verbatim, boilerplate included.
    rows += [
        row
        for key in chosen
        if key in drafts
        for row in deliverable_rows(by_id[key], texts[key], drafts[key], specialist, parts.limits)
    ]
    use = None
    train, held_out = split_rows(rows, assignments)
    shared = limit_source_share(train, sources, filters.max_source_percent)
    fitting = fit_budget(shared, parts.limits.max_tokens)
    fair = limit_source_share(fitting, sources, filters.max_source_percent)
    left_out = replace(
        left_out,
        boilerplate=cleaned.emptied,
        source=len(cleaned.texts) - len(chosen),
        boilerplate_parts=cleaned.parts,
        source_rows=len(train) - len(shared) + len(fitting) - len(fair),
    )
    train, held_out = add_spans(fair, by_id, texts), add_spans(held_out, by_id, texts)
    return DocumentRows(train, held_out, use, len(texts) - len(distinct), left_out)


def _assign(parts: DocumentDatasets, texts: Mapping[str, Text]) -> dict[str, Assignment]:
    """The assignment of every text, made now if it has none."""
    known = parts.builds.assignments(list(texts))
    groups = parts.near_duplicates.groups({key: f"{text.prompt or ''}\n{text.text}" for key, text in texts.items()})
    parts.builds.assign(assign_clusters(groups, known, parts.limits.held_out_percent).values())
    return parts.builds.assignments(list(texts))


def _require_enough(rows: DocumentRows, limits: RowLimits) -> None:
    train, held_out = len(rows.train), len(rows.held_out)
    if train < limits.min_train_rows or held_out < limits.min_held_out_rows:
        raise FailedPrecondition(
            Reason.TOO_FEW_ROWS,
            f"The documents give {train} train rows and {held_out} held-out rows; "
            f"at least {limits.min_train_rows} and {limits.min_held_out_rows} are needed. Publish more documents.",
        )


def _write(parts: DocumentDatasets, specialist: Specialist, snapshot: CorpusSnapshot, rows: DocumentRows) -> Dataset:
    """Store both splits, then the manifest. Equal rows are the same dataset, even if the filters removed something else."""
    ids = sorted({key for row in (*rows.train, *rows.held_out) for key in row.document_ids})
    digests = {document.document_id: document.digest for document in snapshot.documents}
    splits = {
        "train": manifest_entry(parts.writer.write(rows.train)),
        "held_out": manifest_entry(parts.writer.write(rows.held_out)),
    }
    same = {"splits": splits, "sources": [{"document_id": key, "digest": digests[key]} for key in ids]}
    digest, ref = write_manifest(parts.store, snapshot.dataset, same, _rest_of_manifest(parts, specialist, rows))
    return Dataset(
        digest=digest,
        specialist=specialist.name,
        base=specialist.base,
        recipe=specialist.recipe,
        manifest=ref,
        train_rows=len(rows.train),
        held_out_rows=len(rows.held_out),
        document_ids=tuple(ids),
        near_duplicates=rows.near_duplicates,
        left_out=rows.left_out,
    )


def _rest_of_manifest(parts: DocumentDatasets, specialist: Specialist, rows: DocumentRows) -> dict[str, object]:
    rest: dict[str, object] = {
        "kind": DatasetKind.SFT.value,
        "specialist": specialist.name,
        "builder": {"version": BUILDER_VERSION, **asdict(parts.limits), "origins": count_origins(rows.train)},
        "filters": filter_settings(specialist.filters),
        "left_out": asdict(rows.left_out),
    }
    return rest if rows.use is None else rest | {"teacher": asdict(rows.use)}
