"""Preference datasets: pairs from drafts that were judged or finished. The texts of such drafts are saved."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from services.synthetic.datasets import count_origins, invalid_text, manifest_entry, read_texts, write_manifest
from services.synthetic.domain import (
    Conversation,
    CorpusSnapshot,
    Dataset,
    Document,
    KeptDraft,
    Kind,
    Specialist,
    fingerprint,
)
from services.synthetic.ports import Builds, KeptDrafts, SplitWriter
from services.synthetic.rows.preference_rows import Evidence, PairLimits, Pairs, make_pairs
from tailor.errors import FailedPrecondition, NotFound, Reason
from tailor.logging import get_logger
from tailor.storage.buckets import DATASETS
from tailor.storage.protocol import ObjectStore
from tailor.words import DatasetKind

log = get_logger(__name__)

# Increase it whenever the same judgements would give other rows.
PAIRS_VERSION = 1


@dataclass(frozen=True)
class PreferenceDatasets:
    """Makes preference datasets."""

    builds: Builds
    store: ObjectStore
    writer: SplitWriter
    limits: PairLimits

    def fingerprint(self, specialist: Specialist, snapshot: CorpusSnapshot) -> str:
        """A digest of everything that the dataset depends on."""
        judgements = [(judgement.judgement_id, judgement.ranking) for judgement in snapshot.judgements]
        documents = [
            (deliverable.document_id, deliverable.text.sha256, deliverable.draft_id)
            for deliverable in list_deliverables(snapshot)
        ]
        drafts = sorted((draft.draft_id, draft.text.sha256) for draft in snapshot.drafts.values())
        max_pairs = specialist.filters.max_pairs_per_judgement
        settings = (PAIRS_VERSION, specialist.system_prompt, asdict(self.limits), max_pairs)
        return fingerprint(*settings, judgements, documents, drafts)

    def make_dataset(self, specialist: Specialist, snapshot: CorpusSnapshot) -> tuple[Dataset, bool]:
        """Make and store the dataset. Blocks.

        Returns it, and always True, because nothing is left to retry. Raises FailedPrecondition (TOO_FEW_ROWS).
        """
        deliverables = list_deliverables(snapshot)
        texts = read_texts(self.store, deliverables)
        conversations = {
            key: conversation
            for key, draft in snapshot.drafts.items()
            if (conversation := read_draft(self.store, draft))
        }
        evidence = Evidence(
            judgements=snapshot.judgements,
            deliverables=[
                (deliverable, texts[deliverable.document_id].text)
                for deliverable in deliverables
                if deliverable.document_id in texts
            ],
            conversations=conversations,
            assignments=self.builds.assignments([deliverable.document_id for deliverable in deliverables]),
        )
        pairs = make_pairs(specialist, evidence, self.limits)
        _require_enough(pairs, self.limits)
        return _write(self, specialist, snapshot, pairs), True


def save_texts(drafts: KeptDrafts, store: ObjectStore, draft_ids: Sequence[str]) -> None:
    """Copy the texts of judged or finished drafts to the datasets bucket, before they expire. Idempotent."""
    for draft in drafts.kept_drafts(draft_ids):
        if draft.saved:
            continue
        try:
            data = store.get(draft.text)
        except NotFound:
            log.warning("text of a draft no longer exists", draft_id=draft.draft_id)
            continue
        ref = store.put(DATASETS, f"judged/{draft.text.sha256}.json", data, "application/json")
        drafts.keep_draft(replace(draft, text=ref, saved=True))


def read_draft(store: ObjectStore, draft: KeptDraft) -> Conversation | None:
    """A draft with its text; None if the text no longer exists."""
    try:
        value = json.loads(store.get(draft.text))
        messages = tuple((message["role"], message["content"]) for message in value["messages"])
        return Conversation(draft.draft_id, draft.prompt_digest, messages, value["answer"])
    except NotFound:
        return None
    except (ValueError, KeyError, TypeError):
        raise invalid_text(draft.text) from None


def read_deliverable_drafts(store: ObjectStore, snapshot: CorpusSnapshot) -> dict[str, Conversation]:
    """The drafts of deliverables, by the deliverables' ids, without those whose texts no longer exist."""
    drafts = (
        (deliverable.document_id, read_draft(store, snapshot.drafts[deliverable.draft_id]))
        for deliverable in list_deliverables(snapshot)
    )
    return {key: draft for key, draft in drafts if draft is not None}


def list_deliverables(snapshot: CorpusSnapshot) -> list[Document]:
    """The deliverables whose drafts are saved."""
    return [
        document
        for document in snapshot.documents
        if document.kind is Kind.DELIVERABLE and document.draft_id in snapshot.drafts
    ]


def _require_enough(pairs: Pairs, limits: PairLimits) -> None:
    train, held_out, counts = len(pairs.train), len(pairs.held_out), pairs.counts
    if train >= limits.min_train_rows and held_out >= limits.min_held_out_rows:
        return
    unused = {
        "with different prompts or without stored texts": counts.unmatched,
        "with equal texts": counts.identical,
        "tied": counts.tied,
        "too long": counts.too_long,
        "on both sides of the split": counts.across_split,
    }
    why = ", ".join(f"{count} {what}" for what, count in unused.items() if count)
    raise FailedPrecondition(
        Reason.TOO_FEW_ROWS,
        f"{counts.judgements} rankings and {counts.deliverables} deliverables of stored drafts give {train} train pairs and {held_out} "
        f"held-out pairs; at least {limits.min_train_rows} and {limits.min_held_out_rows} are needed. Unused pairs: {why or 'none'}. "
        "Rank more drafts of one prompt, and of more prompts, while the specialist's `keep_drafts` is on.",
        judgements=str(counts.judgements),
        pairs=str(counts.pairs),
    )


def _write(parts: PreferenceDatasets, specialist: Specialist, snapshot: CorpusSnapshot, pairs: Pairs) -> Dataset:
    rows = (*pairs.train, *pairs.held_out)
    documents = sorted({key for row in rows for key in row.document_ids})
    judgements = sorted({key for row in rows for key in row.judgement_ids})
    digests = {document.document_id: document.digest for document in snapshot.documents}
    splits = {"train": parts.writer.write_pairs(pairs.train), "held_out": parts.writer.write_pairs(pairs.held_out)}
    same = {
        "kind": DatasetKind.PREFERENCE.value,
        "splits": {name: manifest_entry(split) for name, split in splits.items()},
        "sources": [{"document_id": key, "digest": digests[key]} for key in documents],
        "judgements": judgements,
    }
    rest = {
        "specialist": specialist.name,
        "builder": {"version": PAIRS_VERSION, **asdict(parts.limits), "origins": count_origins(pairs.train)},
        "max_pairs_per_judgement": specialist.filters.max_pairs_per_judgement,
        "pairs": asdict(pairs.counts),
    }
    digest, manifest = write_manifest(parts.store, snapshot.dataset, same, rest)
    return Dataset(
        digest=digest,
        specialist=specialist.name,
        base=specialist.base,
        recipe=specialist.preference_recipe,
        manifest=manifest,
        train_rows=len(pairs.train),
        held_out_rows=len(pairs.held_out),
        document_ids=tuple(documents),
        near_duplicates=0,
        kind=DatasetKind.PREFERENCE,
        judgement_ids=tuple(judgements),
        pairs=pairs.counts,
        ranked_adapter=snapshot.ranked_adapter,
    )
