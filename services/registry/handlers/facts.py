"""Recording other services' facts. Every function is idempotent."""

from collections.abc import Collection, Sequence

from services.registry.domain import RETIRE, Adapter, Call, DocumentState, Draft, Fact, Replica, Taint
from services.registry.handlers.promotions import RETIRED, find_servable, is_retired, save_serving
from services.registry.ports import Begin, Transaction
from services.registry.rules import serving


def record_fact(begin: Begin, fact: Fact) -> None:
    """Store a fact."""
    with begin() as tx:
        tx.facts.save(fact)


def record_document_state(begin: Begin, state: DocumentState) -> None:
    """Store a submission's state. A late one of an erased document counts as erased and stores no content."""
    with begin() as tx:
        if state.state != "rejected" and tx.erasures.is_erased(state.document_id):
            state = DocumentState(state.submission_id, state.document_id, "erased")
        tx.facts.save_document_state(state)


def record_dataset(begin: Begin, fact: Fact, digest: str, document_ids: Collection[str]) -> None:
    """Store a dataset. If one of its documents has been erased, taint the adapters trained on it."""
    with begin() as tx:
        tx.erasures.lock()
        tx.facts.save(fact)
        for erasure_id in tx.erasures.find_by_document(list(document_ids)).values():
            taint_adapters(tx, {digest}, erasure_id)


def record_adapter(begin: Begin, adapter: Adapter, payload: bytes) -> None:
    """Store an adapter. Taint it if a document of its dataset has been erased, or its parent is tainted."""
    with begin() as tx:
        tx.erasures.lock()
        tx.facts.save_adapter(adapter, payload)
        parent = tx.lineage.find_taint(adapter.parent_digest) if adapter.parent_digest else None
        erasure_id = parent.erasure_id if parent else _find_erasure(tx, adapter.dataset_digest)
        if erasure_id:
            taint_adapters(tx, set(), erasure_id, {adapter.digest})


def _find_erasure(tx: Transaction, dataset_digest: str) -> str:
    """An erasure of one of a dataset's documents; empty if none is erased."""
    documents = tx.lineage.find_documents(dataset_digest)
    return min(tx.erasures.find_by_document(list(documents)).values(), default="")


def record_replica(begin: Begin, replica: Replica) -> None:
    """Store a replica's report, unless a newer one is known."""
    with begin() as tx:
        tx.facts.save_replica(replica)


def record_draft(begin: Begin, draft: Draft, payload: bytes, call: Call | None) -> None:
    """Store a draft's provenance, and count its call once while a canary is running. A cancelled call is None."""
    with begin() as tx:
        tx.facts.save_draft(draft, payload)
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
    """Taint the named adapters, those trained on the datasets, and all trained on top of them. Retired ones stop serving."""
    taints = []
    for adapter in tx.lineage.find_descendants(datasets, adapters):
        specialist = tx.specialists.lock(adapter.specialist)
        retired = specialist is not None and specialist.on_erasure == RETIRE
        taints.append(Taint(adapter.digest, adapter.specialist, erasure_id, retired))
        tx.lineage.save_taint(taints[-1])
    for name in sorted({taint.specialist for taint in taints if taint.retired}):
        _withdraw_retired(tx, name)
    return taints


def _withdraw_retired(tx: Transaction, name: str) -> None:
    specialist, current = tx.specialists.lock(name), tx.servings.current(name)
    if specialist is None:
        return
    if current.adapter_digest and is_retired(tx.lineage, current.adapter_digest):
        adapter = find_servable(tx, [earlier.adapter_digest for earlier in tx.servings.list(name)])
        previous = serving.serve_adapter(current, adapter, specialist, current.generation)
        save_serving(tx, previous, "the serving adapter was retired")
    elif current.canary is not None and is_retired(tx.lineage, current.canary.adapter_digest):
        save_serving(tx, serving.remove_canary(current, specialist, current.generation), RETIRED)
