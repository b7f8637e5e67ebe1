"""Preference datasets: the texts of drafts that somebody judged or finished stay, and become pairs."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from services.synthetic.datasets import bad_text, entry, origins, read_texts, write_manifest
from services.synthetic.domain import (
    Dataset,
    DatasetKind,
    Document,
    KeptDraft,
    Kind,
    Snapshot,
    Specialist,
    Spoken,
    fingerprint,
)
from services.synthetic.judging import Evidence, PairLimits, Pairs, make_pairs
from services.synthetic.ports import Repository, SplitWriter
from tailor.errors import FailedPrecondition, NotFound, Reason
from tailor.logging import get_logger
from tailor.storage.buckets import DATASETS
from tailor.storage.protocol import ObjectStore

log = get_logger(__name__)

# Raised whenever the same judgements would make other rows.
PAIRS_VERSION = 1


@dataclass(frozen=True)
class Preferences:
    """What preference datasets are made with."""

    repository: Repository
    store: ObjectStore
    writer: SplitWriter
    limits: PairLimits

    def mark_of(self, specialist: Specialist, snapshot: Snapshot) -> str:
        """What the dataset depends on, in short."""
        judgements = [(one.judgement_id, one.ranking) for one in snapshot.judgements]
        documents = [(one.document_id, one.text.sha256, one.draft_id) for one in deliverables(snapshot)]
        drafts = sorted((one.draft_id, one.text.sha256) for one in snapshot.drafts.values())
        most = specialist.filters.max_pairs_per_judgement
        settings = (PAIRS_VERSION, specialist.system_prompt, asdict(self.limits), most)
        return fingerprint(*settings, judgements, documents, drafts)

    def make_dataset(self, specialist: Specialist, snapshot: Snapshot) -> tuple[Dataset, bool]:
        """Make the pairs and store them; nothing of them is left for later. FailedPrecondition (TOO_FEW_ROWS)."""
        finished = deliverables(snapshot)
        texts = read_texts(self.store, finished)
        spoken = {key: said for key, draft in snapshot.drafts.items() if (said := read_draft(self.store, draft))}
        evidence = Evidence(
            judgements=snapshot.judgements,
            deliverables=[(one, texts[one.document_id].text) for one in finished if one.document_id in texts],
            spoken=spoken,
            assignments=self.repository.assignments([one.document_id for one in finished]),
        )
        pairs = make_pairs(specialist, evidence, self.limits)
        _require_enough(pairs, self.limits)
        return _write(self, specialist, snapshot, pairs), True


def save_texts(repository: Repository, store: ObjectStore, draft_ids: Sequence[str]) -> None:
    """Copy the texts of drafts that are judged or finished beside the datasets, before they expire. Again, it changes nothing."""
    for draft in repository.kept_drafts(draft_ids):
        if draft.saved:
            continue
        try:
            data = store.get(draft.text)
        except NotFound:
            log.warning("text of a draft is gone", draft_id=draft.draft_id)
            continue
        ref = store.put(DATASETS, f"judged/{draft.text.sha256}.json", data, "application/json")
        repository.keep_draft(replace(draft, text=ref, saved=True))


def read_draft(store: ObjectStore, draft: KeptDraft) -> Spoken | None:
    """A draft with its text; None where that is gone."""
    try:
        value = json.loads(store.get(draft.text))
        messages = tuple((one["role"], one["content"]) for one in value["messages"])
        return Spoken(draft.draft_id, draft.prompt_digest, messages, value["answer"])
    except NotFound:
        return None
    except (ValueError, KeyError, TypeError):
        raise bad_text(draft.text) from None


def drafts_of(store: ObjectStore, snapshot: Snapshot) -> dict[str, Spoken]:
    """The drafts that deliverables were made out of, by the deliverables' ids, as far as their texts are kept."""
    found = ((one.document_id, read_draft(store, snapshot.drafts[one.draft_id])) for one in deliverables(snapshot))
    return {key: draft for key, draft in found if draft is not None}


def deliverables(snapshot: Snapshot) -> list[Document]:
    """The deliverables whose drafts are kept."""
    return [one for one in snapshot.documents if one.kind is Kind.DELIVERABLE and one.draft_id in snapshot.drafts]


def _require_enough(pairs: Pairs, limits: PairLimits) -> None:
    train, held_out, counts = len(pairs.train), len(pairs.held_out), pairs.counts
    if train >= limits.min_train_rows and held_out >= limits.min_held_out_rows:
        return
    lost = {
        "of different prompts or without kept texts": counts.unmatched,
        "of the same text": counts.identical,
        "tied": counts.tied,
        "too long": counts.too_long,
        "on both sides of the split": counts.across_split,
    }
    why = ", ".join(f"{count} {what}" for what, count in lost.items() if count)
    raise FailedPrecondition(
        Reason.TOO_FEW_ROWS,
        f"{counts.judgements} rankings and {counts.deliverables} deliverables of kept drafts make {train} pairs to train on and "
        f"{held_out} held out; {limits.min_train_rows} and {limits.min_held_out_rows} are needed. Pairs that make no row: {why or 'none'}. "
        "Rank more drafts of one prompt, and of more prompts, while the specialist's `keep_drafts` is on.",
        judgements=str(counts.judgements),
        pairs=str(counts.pairs),
    )


def _write(parts: Preferences, specialist: Specialist, snapshot: Snapshot, pairs: Pairs) -> Dataset:
    rows = (*pairs.train, *pairs.held_out)
    documents = sorted({key for row in rows for key in row.document_ids})
    judgements = sorted({key for row in rows for key in row.judgement_ids})
    digests = {document.document_id: document.digest for document in snapshot.documents}
    splits = {"train": parts.writer.write_pairs(pairs.train), "held_out": parts.writer.write_pairs(pairs.held_out)}
    same = {
        "kind": DatasetKind.PREFERENCE.value,
        "splits": {name: entry(split) for name, split in splits.items()},
        "sources": [{"document_id": key, "digest": digests[key]} for key in documents],
        "judgements": judgements,
    }
    rest = {
        "specialist": specialist.name,
        "builder": {"version": PAIRS_VERSION, **asdict(parts.limits), "origins": origins(pairs.train)},
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
