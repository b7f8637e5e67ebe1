"""Recording other services' facts. Every function is idempotent."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from services.registry.adapters.datasets import StoredDatasetDocuments
from services.registry.adapters.sql import Begin, Transaction
from services.registry.domain import (
    RETIRE,
    Adapter,
    Call,
    CataloguedDataset,
    DocumentState,
    Draft,
    Erasure,
    Fact,
    ForgottenBy,
    Replica,
    Taint,
)
from services.registry.handlers.promotions import RETIRED, find_servable, is_retired, save_serving
from services.registry.rules import serving
from tailor.datasets import DatasetManifest
from tailor.errors import NotFound
from tailor.logging import get_logger
from tailor.storage.ref import Ref

log = get_logger(__name__)

REGISTRY = "registry"
REPLAY = "policy-replay"


def record_fact(begin: Begin, fact: Fact) -> None:
    """Store a fact."""
    with begin() as tx:
        tx.facts.upsert(fact)


def record_document_state(begin: Begin, state: DocumentState, awaits: Collection[str] = ()) -> None:
    """Store a submission's state. A late one of an erased document counts as erased and stores no content.

    If a replay made the version and changed the text, what was derived from the earlier version is superseded; `awaits` names the
    services that must answer. If the barrier refused it, the document leaves the catalogue too.
    """
    with begin() as tx:
        if state.supersede_id:
            # Taken before the shared lock of `is_erased`, which could not be raised to it.
            tx.erasures.acquire_lock()
        if state.state != "rejected" and tx.erasures.is_erased(state.document_id):
            state = DocumentState(state.submission_id, state.document_id, "erased")
        known = tx.facts.find_document(state.document_id) if state.supersede_id else None
        tx.facts.save_document_state(state)
        if known is not None and known.sequence < state.sequence and known.text_sha256 != state.text_sha256:
            _supersede(tx, state, awaits)
            if state.state == "rejected":
                tx.facts.drop_document(state.document_id)


def _supersede(tx: Transaction, state: DocumentState, awaits: Collection[str]) -> None:
    """Have every service forget what was derived from the versions before this one, as an erasure does; the document stays."""
    document_id, erasure_id = state.document_id, state.supersede_id
    datasets = tx.lineage.find_datasets([document_id])[document_id]
    taints = taint_adapters(tx, set(datasets), erasure_id)
    services = tuple(sorted({*awaits, REGISTRY}))
    tx.erasures.add_superseded(Erasure(erasure_id, (document_id,), REPLAY, datetime.now(UTC), services))
    tx.lineage.save_superseded(datasets, erasure_id)
    tx.expert_decisions.forget_drawn_drafts(document_id)
    tx.erasures.publish(erasure_id, document_id, datasets, taints, (state.sequence, state.digest))
    tx.erasures.answers.add(ForgottenBy(erasure_id, document_id, REGISTRY, {}, datasets))


def record_dataset(begin: Begin, datasets: StoredDatasetDocuments, fact: Fact, dataset: CataloguedDataset) -> None:
    """Store a dataset, the ids of its documents, and the adapters whose drafts are among its pairs or its edited rows. Blocks.

    If a document has been erased, taint the adapters trained on the dataset, and have every service forget it. If the adapter of a draft
    is tainted, taint them too. A deleted dataset is stored without its documents; synthetic's answers to erasures name it. Raises what
    `datasets` raise, except NotFound.
    """
    digest = dataset.digest
    content = _record_documents(begin, datasets, digest, dataset.manifest)
    with begin() as tx:
        tx.erasures.acquire_lock()
        tx.facts.upsert(fact)
        tx.lineage.save_draft_adapters(digest, dataset.draft_adapters)
        for taint in tx.lineage.find_draft_taints(digest):
            taint_adapters(tx, {digest}, taint.erasure_id)
        if content is not None:
            tx.lineage.save_dataset(digest, content)
            sizes = {ref.sha256: ref.size_bytes for ref in (dataset.manifest, *(file.ref for file in content.files))}
            tx.usage.save_files(digest, fact.specialist, sizes, dataset.create_time)
        for document_id, erasure_id in tx.lineage.find_erased(digest).items():
            taint_adapters(tx, {digest}, erasure_id)
            _publish_again(tx, erasure_id, document_id)


def _record_documents(
    begin: Begin, datasets: StoredDatasetDocuments, digest: str, manifest: Ref
) -> DatasetManifest | None:
    """Store the ids of a dataset's documents, each batch in its own transaction, so that nobody waits for all of them.

    Returns the manifest; None if the ids are already stored, or the dataset was deleted."""
    with begin() as tx:
        if tx.lineage.datasets.has(digest=digest):
            return None
    try:
        content = datasets.read_manifest(manifest)
        for document_ids in datasets.read_document_ids(content):
            with begin() as tx:
                tx.lineage.save_documents(digest, document_ids)
    except NotFound:
        log.warning("dataset was deleted before its documents were read", dataset=digest)
        return None
    return content


def _publish_again(tx: Transaction, erasure_id: str, document_id: str) -> None:
    """Publish an erasure with all datasets and adapters that are known by now: the topic keeps only the last event of a document."""
    datasets = tx.lineage.find_datasets([document_id])[document_id]
    tx.erasures.publish(erasure_id, document_id, datasets, tx.lineage.taints.all(erasure_id=erasure_id))


def record_adapter(begin: Begin, adapter: Adapter, payload: bytes) -> None:
    """Store an adapter. Taint it if a document of its dataset has been erased, or something that it comes from is tainted."""
    with begin() as tx:
        tx.erasures.acquire_lock()
        tx.facts.save_adapter(adapter, payload)
        sizes = {adapter.digest: adapter.size_bytes}
        tx.usage.save_files(adapter.digest, adapter.specialist, sizes, adapter.create_time or datetime.now(UTC))
        taints = tx.lineage.find_origin_taints(adapter)
        erasure_id = taints[0].erasure_id if taints else _find_erasure(tx, adapter.dataset_digest)
        if erasure_id:
            taint_adapters(tx, set(), erasure_id, {adapter.digest})


def _find_erasure(tx: Transaction, dataset_digest: str) -> str:
    """An erasure of one of a dataset's documents, or the one that superseded it; empty if there is none."""
    erased = min(tx.lineage.find_erased(dataset_digest).values(), default="")
    return erased or tx.lineage.find_superseding(dataset_digest)


def record_replica(begin: Begin, replica: Replica) -> None:
    """Store a replica's report, unless a newer one is known."""
    with begin() as tx:
        tx.facts.save_replica(replica)


def record_draft(begin: Begin, draft: Draft, payload: bytes, call: Call | None) -> None:
    """Store a draft's provenance and device time, and count its call once while a canary is running. A cancelled call is None.

    A draft whose prompt was drawn from an erased document does not join the queue.
    """
    with begin() as tx:
        if any(tx.erasures.is_erased(document_id) for document_id in draft.drawn_from):
            draft = replace(draft, text=None)
        tx.facts.save_draft(draft, payload)
        tx.usage.save_serving(draft, datetime.now(UTC))
        if call is not None:
            canary = tx.canaries.find_running(call.specialist)
            if canary is not None and canary.generation == call.generation:
                tx.canaries.save_call(call)


def record_dead_letter(begin: Begin, event_id: str, topic: str) -> None:
    """Count a dead-lettered event."""
    with begin() as tx:
        tx.facts.save_dead_letter(event_id, topic)


def taint_adapters(
    tx: Transaction, datasets: Collection[str], erasure_id: str, adapters: Collection[str] = frozenset()
) -> Sequence[Taint]:
    """Taint the named adapters, those trained on the datasets, and all that came from them. Retired ones stop serving."""
    taints = []
    for adapter in tx.lineage.find_descendants(datasets, adapters):
        specialist = tx.specialists.lock(name=adapter.specialist)
        retired = specialist is not None and specialist.on_erasure == RETIRE
        taints.append(Taint(adapter.digest, adapter.specialist, erasure_id, retired))
        tx.lineage.save_taint(taints[-1])
        if retired:
            # Training deletes the weights of retired adapters.
            tx.usage.mark_deleted([adapter.digest], datetime.now(UTC))
    for name in sorted({taint.specialist for taint in taints if taint.retired}):
        _withdraw_retired(tx, name)
    return taints


def _withdraw_retired(tx: Transaction, name: str) -> None:
    specialist, current = tx.specialists.lock(name=name), tx.servings.current(name)
    if specialist is None:
        return
    if current.adapter_digest and is_retired(tx, current.adapter_digest):
        generations = tx.servings.list(name)
        adapter = find_servable(tx, [earlier.adapter_digest for earlier in generations])
        previous = serving.serve_adapter(current, adapter, specialist, current.generation)
        previous = replace(previous, overridden=serving.was_overridden(generations, adapter))
        save_serving(tx, previous, "the serving adapter was retired")
    elif current.canary is not None and is_retired(tx, current.canary.adapter_digest):
        save_serving(tx, serving.remove_canary(current, specialist, current.generation), RETIRED)
