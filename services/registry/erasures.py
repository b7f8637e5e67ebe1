"""Erasing documents: who has to forget what, which adapters are tainted by it, and the receipt once all have answered."""

import json
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from services.registry.domain import RETIRE, Adapter, DocumentState, Erasure, ErasureReceipt, Fact, ForgottenBy, Taint
from services.registry.handlers import Begin, Transaction
from services.registry.promotions import RETIRED, is_retired, not_retired, save_serving
from services.registry.serving import next_serving, without_canary
from tailor.errors import InvalidArgument, NotFound, Reason

DOCUMENT_ID = re.compile(r"doc_[0-9a-f]{32}")
REASON = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
MAX_DOCUMENTS = 1000
NAME = "registry"

Sign = Callable[[str], ErasureReceipt]


@dataclass(frozen=True)
class Request:
    """What is to be erased; the id follows from the caller's request id, so that the same request is the same erasure."""

    erasure_id: str
    document_ids: Sequence[str]
    reason: str


def erase(begin: Begin, awaits: Collection[str], request: Request) -> Erasure:
    """Erase documents, known here or not; what is erased already is not erased again. `awaits` are the services that must answer."""
    _check(request)
    with begin() as tx:
        tx.lock_erasures()
        held = tx.erasure(request.erasure_id)
        if held is not None:
            return held
        known = tx.erased(request.document_ids)
        fresh = tuple(sorted(set(request.document_ids) - known.keys()))
        if not fresh:
            return _erasure(tx, known[min(known)])
        datasets = tx.datasets_of(fresh)
        taints = taint(tx, {digest for digests in datasets.values() for digest in digests}, request.erasure_id)
        tx.save_erasure(
            Erasure(request.erasure_id, fresh, request.reason, datetime.now(UTC), tuple(sorted({*awaits, NAME})))
        )
        for document_id in fresh:
            counts, own = tx.forget_document(document_id), datasets[document_id]
            tx.state_erased(request.erasure_id, document_id, own, taints)
            tx.save_forgotten(ForgottenBy(request.erasure_id, document_id, NAME, counts, own))
        return _erasure(tx, request.erasure_id)


def _check(request: Request) -> None:
    wrong: dict[str, str] = {}
    if not 1 <= len(request.document_ids) <= MAX_DOCUMENTS:
        wrong["document_ids"] = f"1 to {MAX_DOCUMENTS} ids."
    elif not all(DOCUMENT_ID.fullmatch(document_id) for document_id in request.document_ids):
        wrong["document_ids"] = "An id is `doc_` and 32 hexadecimal digits."
    if not REASON.fullmatch(request.reason):
        wrong["reason"] = "A slug of at most 64 characters, such as `subject-request`."
    if wrong:
        raise InvalidArgument(Reason.INVALID_ERASURE, "The erasure is wrong.", field_violations=wrong)


def lift(begin: Begin, document_id: str) -> Erasure:
    """Let a document be published again; NotFound where it is not erased."""
    with begin() as tx:
        tx.lock_erasures()
        erasure_id = tx.erased([document_id]).get(document_id)
        if erasure_id is None:
            raise NotFound(Reason.NOT_ERASED, "The document is not erased; `tailor erasures` lists what is.")
        tx.lift(erasure_id, document_id)
        return _erasure(tx, erasure_id)


def get_erasure(begin: Begin, erasure_id: str) -> Erasure:
    """An erasure; NotFound where there is none of this id."""
    with begin() as tx:
        return _erasure(tx, erasure_id)


def list_erasures(begin: Begin, before: int | None, limit: int) -> list[tuple[int, Erasure]]:
    """Positions and erasures, newest first."""
    with begin() as tx:
        return [(position, _erasure(tx, erasure_id)) for position, erasure_id in tx.erasures(before, limit)]


def record_forgotten(begin: Begin, sign: Sign, forgotten: ForgottenBy) -> None:
    """A service forgot a document. The last one's answer makes the receipt; an answer told again changes nothing."""
    with begin() as tx:
        tx.lock_erasures()
        erasure = _erasure(tx, forgotten.erasure_id)
        tx.save_forgotten(forgotten)
        erasure = _erasure(tx, erasure.erasure_id)
        if erasure.receipt is None and not erasure.waiting_for:
            answers = tx.forgotten(erasure.erasure_id)
            body = receipt_body(erasure, answers, tx.taints(erasure.erasure_id), datetime.now(UTC))
            tx.save_receipt(erasure.erasure_id, sign(body))


def receipt_body(erasure: Erasure, answers: Sequence[ForgottenBy], taints: Sequence[Taint], now: datetime) -> str:
    """What is signed: ids, times and counts; nothing personal."""
    services: dict[str, dict[str, int]] = {}
    for answer in answers:
        counts = services.setdefault(answer.service, {})
        for name, count in answer.counts.items():
            counts[name] = counts.get(name, 0) + count
    content = {
        "erasure_id": erasure.erasure_id,
        "reason": erasure.reason,
        "document_ids": list(erasure.document_ids),
        "asked_time": erasure.create_time.isoformat(),
        "forgotten_time": now.isoformat(),
        "services": services,
        "datasets": sorted({digest for answer in answers for digest in answer.datasets}),
        "adapters": [
            {"digest": one.adapter_digest, "specialist": one.specialist, "is": "retired" if one.retired else "tainted"}
            for one in sorted(taints, key=lambda one: one.adapter_digest)
        ],
    }
    return json.dumps(content, sort_keys=True, indent=1)


def record_document_state(begin: Begin, state: DocumentState) -> None:
    """Keep where a submission is; what comes late of an erased document is counted as erased and holds nothing."""
    with begin() as tx:
        if state.state != "rejected" and tx.is_erased(state.document_id):
            state = DocumentState(state.submission_id, state.document_id, "erased", b"")
        tx.save_document_state(state)


def record_dataset(begin: Begin, fact: Fact, digest: str, document_ids: Collection[str]) -> None:
    """Keep a dataset. Where one of its documents was erased meanwhile, what learns from it is tainted."""
    with begin() as tx:
        tx.lock_erasures()
        tx.save_fact(fact)
        for document_id, erasure_id in tx.erased(list(document_ids)).items():
            if document_id in document_ids:
                taint(tx, {digest}, erasure_id)


def record_adapter(begin: Begin, adapter: Adapter, payload: bytes) -> None:
    """Keep an adapter; it is tainted where it learned from what was erased meanwhile, or its parent is."""
    with begin() as tx:
        tx.lock_erasures()
        tx.save_adapter(adapter, payload)
        parent = tx.tainted(adapter.parent_digest) if adapter.parent_digest else None
        erasure_id = parent.erasure_id if parent else tx.erasure_of_dataset(adapter.dataset_digest)
        if erasure_id:
            taint(tx, set(), erasure_id, {adapter.digest})


def taint(
    tx: Transaction, datasets: Collection[str], erasure_id: str, adapters: Collection[str] = frozenset()
) -> Sequence[Taint]:
    """Mark adapters: those named, those that learned from the datasets, and all trained on top of them. Stop serving the retired."""
    found = []
    for adapter in tx.learned_from(datasets, adapters):
        specialist = tx.lock_specialist(adapter.specialist)
        retired = specialist is not None and specialist.on_erasure == RETIRE
        found.append(Taint(adapter.digest, adapter.specialist, erasure_id, retired))
        tx.save_taint(found[-1])
    for name in sorted({one.specialist for one in found if one.retired}):
        _stop_serving_retired(tx, name)
    return found


def _stop_serving_retired(tx: Transaction, name: str) -> None:
    specialist, current = tx.lock_specialist(name), tx.serving(name)
    if specialist is None:
        return
    if current.adapter_digest and is_retired(tx, current.adapter_digest):
        adapter = not_retired(tx, [serving.adapter_digest for serving in tx.servings(name)])
        save_serving(tx, next_serving(current, adapter, specialist, current.generation), "what served was retired")
    elif current.canary is not None and is_retired(tx, current.canary.adapter_digest):
        save_serving(tx, without_canary(current, specialist, current.generation), RETIRED)


def _erasure(tx: Transaction, erasure_id: str) -> Erasure:
    erasure = tx.erasure(erasure_id)
    if erasure is None:
        raise NotFound(Reason.UNKNOWN_ERASURE, "There is no such erasure; `tailor erasures` lists them.")
    return erasure
