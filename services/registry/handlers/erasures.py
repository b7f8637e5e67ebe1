"""Erasing documents: what every service must forget, and the receipt when all have answered."""

import json
import re
from collections.abc import Collection, Sequence
from datetime import UTC, datetime

from services.registry.adapters.erasures import SqlErasures
from services.registry.adapters.sql import Begin, Transaction
from services.registry.domain import Adapter, Erasure, ErasureRequest, ForgottenBy, Learner, Taint
from services.registry.handlers.facts import taint_adapters
from services.registry.ports import Sign
from tailor.errors import InvalidArgument, NotFound, PermissionDenied, Reason

# `txt_` is a row that comes from no document: an imported one, or an example of a synthesis.
DOCUMENT_ID = re.compile(r"(doc|txt)_[0-9a-f]{32}")
REASON = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
MAX_DOCUMENTS = 1000
NAME = "registry"


def erase(begin: Begin, awaits: Collection[str], request: ErasureRequest) -> Erasure:
    """Erase documents, catalogued or not. Documents that are already erased are left out; a repeated request has no effect.

    `awaits` names the services that must answer before the receipt is signed."""
    check_request(request)
    with begin() as tx:
        tx.erasures.acquire_lock()
        known = tx.erasures.find(erasure_id=request.erasure_id)
        if known is not None:
            return known
        erased = tx.erasures.find_by_document(request.document_ids)
        remaining = tuple(sorted(set(request.document_ids) - erased.keys()))
        if not remaining:
            return _find(tx.erasures, erased[min(erased)])
        datasets = tx.lineage.find_datasets(remaining)
        affected = {digest for digests in datasets.values() for digest in digests}
        taints = taint_adapters(tx, affected, request.erasure_id)
        services = tuple(sorted({*awaits, NAME}))
        tx.erasures.save(Erasure(request.erasure_id, remaining, request.reason, datetime.now(UTC), services))
        for document_id in remaining:
            counts, digests = tx.erasures.forget_document(document_id), datasets[document_id]
            tx.erasures.publish(request.erasure_id, document_id, digests, taints)
            tx.erasures.answers.add(ForgottenBy(request.erasure_id, document_id, NAME, counts, digests))
        return _find(tx.erasures, request.erasure_id)


def check_request(request: ErasureRequest) -> None:
    """Raises InvalidArgument (INVALID_ERASURE) for malformed or too many ids, or an invalid reason."""
    violations: dict[str, str] = {}
    if not 1 <= len(request.document_ids) <= MAX_DOCUMENTS:
        violations["document_ids"] = f"must have 1 to {MAX_DOCUMENTS} ids"
    elif not all(DOCUMENT_ID.fullmatch(document_id) for document_id in request.document_ids):
        violations["document_ids"] = "must be `doc_` or `txt_` and 32 hexadecimal digits each"
    if not REASON.fullmatch(request.reason):
        violations["reason"] = "must be a slug of at most 64 characters, such as `subject-request`"
    if violations:
        raise InvalidArgument(Reason.INVALID_ERASURE, "The erasure is invalid.", field_violations=violations)


def lift_erasure(begin: Begin, document_id: str) -> Erasure:
    """Allow a document to be published again. Raises NotFound if it is not erased."""
    with begin() as tx:
        tx.erasures.acquire_lock()
        erasure_id = tx.erasures.find_by_document([document_id]).get(document_id)
        if erasure_id is None:
            raise NotFound(Reason.NOT_ERASED, "The document is not erased. `tailor erasure list` lists what is.")
        tx.erasures.lift(erasure_id, document_id)
        return _find(tx.erasures, erasure_id)


def list_learners(begin: Begin, document_ids: Sequence[str]) -> tuple[Sequence[str], Sequence[Learner]]:
    """The datasets with rows of the documents, and the adapters trained on them or on such adapters, both sorted by digest.

    Raises InvalidArgument (INVALID_ERASURE) for malformed or too many ids.
    """
    check_request(ErasureRequest("", document_ids, "access"))
    with begin() as tx:
        datasets = {digest for digests in tx.lineage.find_datasets(document_ids).values() for digest in digests}
        adapters = tx.lineage.find_descendants(datasets, set()) if datasets else []
        learners = [_learner(tx, adapter) for adapter in adapters]
    return sorted(datasets), sorted(learners, key=lambda learner: learner.adapter.digest)


def _learner(tx: Transaction, adapter: Adapter) -> Learner:
    taint = tx.lineage.taints.find(adapter_digest=adapter.digest)
    serving = tx.servings.current(adapter.specialist).adapter_digest == adapter.digest
    return Learner(adapter, serving, taint is not None, taint is not None and taint.retired)


def get_erasure(begin: Begin, erasure_id: str) -> Erasure:
    """Raises NotFound for an unknown id."""
    with begin() as tx:
        return _find(tx.erasures, erasure_id)


def record_answer(begin: Begin, sign: Sign, asked: Collection[str], answer: ForgottenBy) -> None:
    """Store that a service has forgotten a document, and sign the receipt after the last answer. Idempotent.

    `asked` names the services that are asked to forget. The datasets that an answer names had rows of the document, even if the registry
    never saw their sources. Raises PermissionDenied for the answer of another service, or about another document: a receipt names only what
    the registry asked for."""
    with begin() as tx:
        tx.erasures.acquire_lock()
        erasure = _find(tx.erasures, answer.erasure_id)
        if answer.service not in asked or answer.document_id not in erasure.document_ids:
            raise PermissionDenied(
                Reason.BEYOND_THE_REGISTRY,
                f"{answer.erasure_id} did not ask this service to forget this document; the answer does not count.",
            )
        tx.erasures.answers.add(answer)
        for digest in answer.datasets:
            tx.lineage.save_documents(digest, [answer.document_id])
        tx.lineage.save_superseded(answer.datasets, answer.erasure_id)
        tx.usage.mark_deleted(answer.datasets, datetime.now(UTC))
        taint_adapters(tx, answer.datasets, answer.erasure_id)
        erasure = _find(tx.erasures, answer.erasure_id)
        if erasure.receipt is None and not erasure.waiting_for:
            answers = tx.erasures.list_answers(erasure.erasure_id)
            taints = tx.lineage.taints.all(erasure_id=erasure.erasure_id)
            tx.erasures.save_receipt(
                erasure.erasure_id, sign(receipt_body(erasure, answers, taints, datetime.now(UTC)))
            )


def receipt_body(erasure: Erasure, answers: Sequence[ForgottenBy], taints: Sequence[Taint], now: datetime) -> str:
    """The JSON to sign: ids, times and counts, no personal data."""
    services: dict[str, dict[str, int]] = {}
    for answer in answers:
        counts = services.setdefault(answer.service, {})
        for name, count in answer.counts.items():
            counts[name] = counts.get(name, 0) + count
    adapters = [
        {
            "digest": taint.adapter_digest,
            "specialist": taint.specialist,
            "is": "retired" if taint.retired else "tainted",
        }
        for taint in sorted(taints, key=lambda taint: taint.adapter_digest)
    ]
    content = {
        "erasure_id": erasure.erasure_id,
        "reason": erasure.reason,
        "document_ids": list(erasure.document_ids),
        "asked_time": erasure.create_time.isoformat(),
        "forgotten_time": now.isoformat(),
        "services": services,
        "datasets": sorted({digest for answer in answers for digest in answer.datasets}),
        "adapters": adapters,
    }
    return json.dumps(content, sort_keys=True, indent=1)


def _find(erasures: SqlErasures, erasure_id: str) -> Erasure:
    erasure = erasures.find(erasure_id=erasure_id)
    if erasure is None:
        raise NotFound(
            Reason.UNKNOWN_ERASURE, "This erasure does not exist. `tailor erasure list` lists the known ones."
        )
    return erasure
