"""Preference datasets: pairs from drafts that were judged or finished. The texts of such drafts are saved."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from services.synthetic.adapters.sql import SqlRepository
from services.synthetic.corpus import ALL_SEGMENTS, StoredFile
from services.synthetic.datasets import read_draft, read_texts, store_file, write_manifest
from services.synthetic.domain import (
    CRITIQUE,
    Dataset,
    LastBuild,
    PairEvidence,
    PairRow,
    Specialist,
    fingerprint,
    is_text_id,
)
from services.synthetic.parquet import write_ids, write_pairs
from services.synthetic.ports import TokenCounter
from services.synthetic.rows.preference_rows import Evidence, PairLimits, Pairs, make_pairs
from tailor.datasets import HELD_OUT, TRAIN, DatasetFile, DatasetManifest, IdFiles, SplitFiles
from tailor.errors import CorruptObject, FailedPrecondition, NotFound, Reason
from tailor.logging import get_logger
from tailor.rounds import measure_progress
from tailor.storage.buckets import DATASETS, DRAFTS, DRAWN
from tailor.storage.protocol import ObjectStore
from tailor.values import DatasetKind

log = get_logger(__name__)

# Increase it whenever the same judgements would give other rows.
PAIRS_VERSION = 4


@dataclass(frozen=True)
class PreferenceDatasets:
    """Makes preference datasets."""

    sources: SqlRepository
    store: ObjectStore
    limits: PairLimits

    def make_dataset(
        self, specialist: Specialist, evidence: PairEvidence, counter: TokenCounter, last: LastBuild
    ) -> tuple[Dataset, tuple[StoredFile, ...], str]:
        """Make and store the dataset, or return the last one if nothing that it depends on changed. Blocks.

        Returns it with its files and its fingerprint. Raises FailedPrecondition (TOO_FEW_ROWS).
        """
        limits = limits_of(specialist, self.limits, counter)
        current = _fingerprint(specialist, evidence, counter, limits)
        if last.dataset is not None and last.fingerprint == current:
            return last.dataset, (), current
        pairs = make_pairs(specialist, self._read(specialist, evidence), limits, counter)
        _require_enough(specialist, pairs, limits)
        return *self._write(specialist, evidence, pairs, limits, last), current

    def _read(self, specialist: Specialist, evidence: PairEvidence) -> Evidence:
        texts = read_texts(self.store, evidence.deliverables)
        drafts = {key: read_draft(self.store, draft) for key, draft in evidence.drafts.items()}
        ids = [deliverable.document_id for deliverable in evidence.deliverables]
        return Evidence(
            judgements=evidence.judgements,
            deliverables=[
                (deliverable, texts[deliverable.document_id].text)
                for deliverable in evidence.deliverables
                if deliverable.document_id in texts
            ],
            conversations={key: draft for key, draft in drafts.items() if draft is not None},
            sides=self.sources.sides(specialist.name, ids),
            revisions=evidence.revisions,
        )

    def _write(
        self, specialist: Specialist, evidence: PairEvidence, pairs: Pairs, limits: PairLimits, last: LastBuild
    ) -> tuple[Dataset, tuple[StoredFile, ...]]:
        splits = {TRAIN: self._store(pairs.train), HELD_OUT: self._store(pairs.held_out)}
        rows = (*pairs.train, *pairs.held_out)
        digests = {document.document_id: document.digest for document in evidence.deliverables}
        documents = sorted({key for row in rows for key in row.document_ids})
        judgements = sorted({key for row in rows for key in row.judgement_ids})
        # Edited drafts are named by text ids, which have no version.
        columns = {"document_id": documents, "digest": [digests.get(key, "") for key in documents]}
        manifest = DatasetManifest(
            kind=DatasetKind.PREFERENCE,
            specialist=specialist.name,
            splits=splits,
            sources=self._store_ids(columns, len(documents)),
            judgements=self._store_ids({"judgement_id": judgements}, len(judgements)),
        )
        content = manifest.as_json() | _rest_of_manifest(specialist, pairs, limits)
        same = ("kind", "splits", "sources", "judgements")
        digest, ref = write_manifest(self.store, last.dataset, content, same)
        dataset = Dataset(
            digest=digest,
            specialist=specialist.name,
            base=specialist.base,
            pipeline=specialist.pipeline,
            manifest=ref,
            train_rows=len(pairs.train),
            held_out_rows=len(pairs.held_out),
            documents=sum(not is_text_id(key) for key in documents),
            near_duplicates=0,
            kind=DatasetKind.PREFERENCE,
            judgements=len(judgements),
            pairs=pairs.counts,
            draft_adapters=evidence.list_adapters(rows),
        )
        return dataset, _stored_files(manifest)

    def _store(self, rows: Sequence[PairRow]) -> SplitFiles:
        if not rows:
            return SplitFiles()
        file = store_file(self.store, write_pairs(rows), len(rows))
        return SplitFiles(len(rows), sum(row.tokens for row in rows), (file,))

    def _store_ids(self, columns: dict[str, list[str]], count: int) -> IdFiles:
        return IdFiles(count, (store_file(self.store, write_ids(columns), count),) if count else ())


def limits_of(specialist: Specialist, limits: PairLimits, counter: TokenCounter) -> PairLimits:
    """The specialist's limits: its own row length or else the base's context, and its share of held-out prompts."""
    policy = specialist.rows
    longest = min(policy.max_row_tokens or counter.context_tokens, counter.context_tokens)
    return replace(limits, max_tokens=longest, held_out_percent=policy.held_out_percent)


def _fingerprint(specialist: Specialist, evidence: PairEvidence, counter: TokenCounter, limits: PairLimits) -> str:
    """A digest of everything that the dataset depends on."""
    judgements = [(judgement.judgement_id, judgement.ranking, judgement.places) for judgement in evidence.judgements]
    documents = [(entry.document_id, entry.text.sha256, entry.draft_id) for entry in evidence.deliverables]
    drafts = sorted((draft.draft_id, draft.text.sha256) for draft in evidence.drafts.values())
    revisions = [(entry.judgement_id, entry.draft_id, entry.text) for entry in evidence.revisions]
    settings = (specialist.system_prompt, asdict(limits), specialist.filters.max_pairs_per_judgement, counter.digest)
    return fingerprint(PAIRS_VERSION, *settings, judgements, documents, drafts, revisions)


def _rest_of_manifest(specialist: Specialist, pairs: Pairs, limits: PairLimits) -> dict[str, object]:
    return {
        "builder": {"version": PAIRS_VERSION, **asdict(limits)},
        "max_pairs_per_judgement": specialist.filters.max_pairs_per_judgement,
        "pairs": asdict(pairs.counts),
    }


def _stored_files(manifest: DatasetManifest) -> tuple[StoredFile, ...]:
    """The files, for the lists of a dataset."""
    rows: list[DatasetFile] = [file for split in manifest.splits.values() for file in split.files]
    return (
        *(StoredFile(file, ALL_SEGMENTS) for file in (*rows, *manifest.judgements.files)),
        *(StoredFile(file, ALL_SEGMENTS, is_sources=True) for file in manifest.sources.files),
    )


def save_texts(drafts: SqlRepository, store: ObjectStore, draft_ids: Sequence[str]) -> None:
    """Copy the texts of judged or finished drafts to the datasets bucket, before they expire. Idempotent."""
    for draft in drafts.drafts.all(draft_id=draft_ids):
        if draft.saved:
            continue
        try:
            data = store.get(draft.text)
        except (NotFound, CorruptObject) as error:
            log.warning("draft left out", draft_id=draft.draft_id, uri=draft.text.uri, reason=error.reason.value)
            continue
        ref = store.put(DATASETS, saved_key(draft.text.sha256), data, "application/json")
        drafts.keep_draft(replace(draft, text=ref, saved=True))


def saved_key(digest: str) -> str:
    """The key in the datasets bucket of a saved text with this SHA-256."""
    return f"judged/{digest}.json"


def delete_drawn_text(store: ObjectStore, digest: str) -> bool:
    """Delete the text of a draft whose prompt was drawn from the drafts bucket; True if it was there."""
    key = f"{DRAWN}{digest}.json"
    is_there = store.exists(DRAFTS, key)
    if is_there:
        store.delete(DRAFTS, key)
    return is_there


def _require_enough(specialist: Specialist, pairs: Pairs, limits: PairLimits) -> None:
    """Refuse a dataset whose adapter could not pass the gate: too few rows, or too few of them held out.

    A prompt with nothing but a revision counts as no ranked one.
    """
    train, held_out, counts = len(pairs.train), len(pairs.held_out), pairs.counts
    prompts = {row.prompt_digest for row in pairs.held_out}
    progress = measure_progress(
        len(prompts | {row.prompt_digest for row in pairs.train if row.task != CRITIQUE}),
        len(prompts),
        min_ranked_prompts=specialist.policy.min_ranked_prompts,
        percent=limits.held_out_percent,
    )
    if train >= limits.min_train_rows and held_out >= limits.min_held_out_rows and not progress.missing:
        return
    unused = {
        "with different prompts or without stored texts": counts.unmatched,
        "with equal texts": counts.identical,
        "tied": counts.tied,
        "too long": counts.too_long,
        "not in the form of the base's chat template": counts.unfit,
        "on both sides of the split, or revisions of held-out prompts": counts.across_split,
    }
    why = ", ".join(f"{count} {what}" for what, count in unused.items() if count)
    raise FailedPrecondition(
        Reason.TOO_FEW_ROWS,
        f"{counts.judgements} rankings and {counts.deliverables} deliverables of stored drafts give {train} train pairs and {held_out} "
        f"held-out pairs; at least {limits.min_train_rows} and {limits.min_held_out_rows} are needed. {progress.sentence} "
        f"Unused pairs: {why or 'none'}. "
        "Rank more drafts of one prompt, and of more prompts, while the specialist's `keep_drafts` is on.",
        judgements=str(counts.judgements),
        pairs=str(counts.pairs),
    )
