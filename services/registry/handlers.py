"""One function per command or event. Each opens one transaction; what it states is sent when that commits."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Protocol

from services.registry.comparing import Arm, Call, Canary, Outcome
from services.registry.domain import (
    Adapter,
    ApiKey,
    Barrier,
    DocumentState,
    Draft,
    Erasure,
    ErasureReceipt,
    Fact,
    ForgottenBy,
    Judgement,
    Selection,
    Specialist,
    Taint,
    check_judgement,
    check_specialist,
    one_specialist,
)
from services.registry.gate import Decision, Evaluation
from services.registry.rollouts import Replica
from services.registry.serving import Serving
from tailor.errors import Aborted, AlreadyExists, NotFound, Reason


class Transaction(Protocol):
    """What the handlers need of the catalogue's database, within one transaction."""

    def specialist(self, name: str) -> Specialist | None: ...
    def lock_specialist(self, name: str) -> Specialist | None: ...
    def save_specialist(self, specialist: Specialist) -> None: ...
    def serving(self, name: str) -> Serving: ...
    def servings(self, name: str) -> Sequence[Serving]: ...
    def save_serving(self, serving: Serving) -> None: ...
    def save_document_state(self, state: DocumentState) -> None: ...
    def save_fact(self, fact: Fact) -> None: ...
    def save_adapter(self, adapter: Adapter, payload: bytes) -> None: ...
    def adapter(self, digest: str) -> Adapter | None: ...
    def save_evaluation(self, evaluation: Evaluation, decision: Decision, why: Sequence[str]) -> None: ...
    def decision(self, evaluation_id: str) -> Decision | None: ...
    def newest_evaluation(self, adapter_digest: str) -> Evaluation | None: ...
    def save_draft(self, draft: Draft, payload: bytes) -> None: ...
    def draft(self, draft_id: str) -> Draft | None: ...
    def judgement(self, judgement_id: str) -> Judgement | None: ...
    def save_judgement(self, judgement: Judgement) -> None: ...
    def save_key(self, key: ApiKey, secret_sha256: str) -> None: ...
    def key(self, key_id: str) -> ApiKey | None: ...
    def key_by_hash(self, secret_sha256: str) -> ApiKey | None: ...
    def save_replica(self, replica: Replica) -> None: ...
    def save_dead_letter(self, event_id: str, topic: str) -> None: ...
    def start_canary(self, canary: Canary) -> None: ...
    def running_canary(self, specialist: str) -> Canary | None: ...
    def running_canaries(self) -> Sequence[str]: ...
    def save_call(self, call: Call) -> None: ...
    def arms(self, canary: Canary) -> tuple[Arm, Arm]: ...
    def end_canary(self, specialist: str, outcome: Outcome, reason: str) -> None: ...
    def let_wait(self, specialist: str, adapter_digest: str) -> None: ...
    def waiting(self) -> Mapping[str, str]: ...
    def waits_no_more(self, adapter_digest: str) -> None: ...
    def lock_erasures(self) -> None: ...
    def erasure(self, erasure_id: str) -> Erasure | None: ...
    def erasures(self, before: int | None, limit: int) -> Sequence[tuple[int, str]]: ...
    def save_erasure(self, erasure: Erasure) -> None: ...
    def state_erased(
        self, erasure_id: str, document_id: str, datasets: Sequence[str], taints: Sequence[Taint]
    ) -> None: ...
    def erased(self, document_ids: Sequence[str]) -> Mapping[str, str]: ...
    def is_erased(self, document_id: str) -> bool: ...
    def lift(self, erasure_id: str, document_id: str) -> None: ...
    def forget_document(self, document_id: str) -> Mapping[str, int]: ...
    def datasets_of(self, document_ids: Sequence[str]) -> Mapping[str, tuple[str, ...]]: ...
    def erasure_of_dataset(self, dataset_digest: str) -> str: ...
    def learned_from(self, datasets: Collection[str], adapters: Collection[str]) -> Sequence[Adapter]: ...
    def save_taint(self, taint: Taint) -> None: ...
    def tainted(self, adapter_digest: str) -> Taint | None: ...
    def taints(self, erasure_id: str) -> Sequence[Taint]: ...
    def save_forgotten(self, forgotten: ForgottenBy) -> None: ...
    def forgotten(self, erasure_id: str) -> Sequence[ForgottenBy]: ...
    def save_receipt(self, erasure_id: str, receipt: ErasureReceipt) -> None: ...


Begin = Callable[[], AbstractContextManager[Transaction]]


def create_specialist(begin: Begin, specialist: Specialist) -> tuple[Specialist, bool]:
    """Define a specialist; the specialist and whether it is new. AlreadyExists where the name means something else."""
    check_specialist(specialist)
    with begin() as tx:
        held = tx.lock_specialist(specialist.name)
        if held is not None:
            if not held.same_definition(specialist):
                raise AlreadyExists(
                    Reason.SPECIALIST_EXISTS, "The name means another definition; update it, or choose another name."
                )
            return held, False
        created = replace(specialist, revision=1, update_time=datetime.now(UTC))
        tx.save_specialist(created)
        return created, True


def update_specialist(begin: Begin, specialist: Specialist) -> Specialist:
    """Replace a definition; Aborted where `revision` is not the current one."""
    check_specialist(specialist)
    with begin() as tx:
        held = held_specialist(tx, specialist.name)
        if held.revision != specialist.revision:
            raise Aborted(
                Reason.REVISION_MOVED,
                f"Revision {held.revision} holds: look again, then update.",
                revision=str(held.revision),
            )
        if held.same_definition(specialist):
            return held
        updated = replace(specialist, revision=held.revision + 1, update_time=datetime.now(UTC))
        tx.save_specialist(updated)
        return updated


def record_judgement(
    begin: Begin,
    barrier: Barrier,
    *,
    judgement_id: str,
    ranking: tuple[str, ...],
    rubric: tuple[int, int, int],
    comment: str,
    may_use: Callable[[str], bool],
) -> Judgement:
    """Keep a judgement, its comment anonymised as the specialist's documents are; the same id again returns what is kept."""
    check_judgement(ranking, rubric, comment)
    with begin() as tx:
        kept = tx.judgement(judgement_id)
        drafts = [_draft(tx, draft_id, may_use) for draft_id in ranking]
    if kept is not None:
        return kept
    specialist = one_specialist(drafts)
    with begin() as tx:
        held = tx.specialist(specialist)
    labels = Selection().labels if held is None else held.selection.labels
    judgement = Judgement(
        judgement_id=judgement_id,
        specialist=specialist,
        ranking=ranking,
        rubric=rubric,
        comment=barrier.anonymize(comment, labels) if comment.strip() else "",
        create_time=datetime.now(UTC),
    )
    with begin() as tx:
        tx.save_judgement(judgement)
    return judgement


def record_fact(begin: Begin, fact: Fact) -> None:
    """Keep a fact; the same id again replaces it."""
    with begin() as tx:
        tx.save_fact(fact)


def record_replica(begin: Begin, replica: Replica) -> None:
    """Keep what a replica said of itself; what it said before that is ignored."""
    with begin() as tx:
        tx.save_replica(replica)


def record_draft(begin: Begin, draft: Draft, payload: bytes, call: Call | None) -> None:
    """Keep a draft's provenance, and count the call, once, where a canary is compared; a call that its caller ended is none."""
    with begin() as tx:
        tx.save_draft(draft, payload)
        if call is not None:
            canary = tx.running_canary(call.specialist)
            if canary is not None and canary.generation == call.generation:
                tx.save_call(call)


def record_dead_letter(begin: Begin, event_id: str, topic: str) -> None:
    """Count an event that was set aside."""
    with begin() as tx:
        tx.save_dead_letter(event_id, topic)


def visible_draft(begin: Begin, draft_id: str, *, role: str, key_id: str, may_use: Callable[[str], bool]) -> Draft:
    """A draft that the caller may see: of a specialist it was given, and for a caller's key one that it asked for itself."""
    with begin() as tx:
        draft = _draft(tx, draft_id, may_use)
    if role == "ROLE_CALLER" and draft.key_id != key_id:
        raise _no_draft()
    return draft


def held_specialist(tx: Transaction, name: str) -> Specialist:
    """A specialist that nobody else changes before the transaction ends; NotFound for an unknown one."""
    held = tx.lock_specialist(name)
    if held is None:
        raise unknown_specialist()
    return held


def unknown_specialist() -> NotFound:
    """The same for what does not exist and for what was not given to the caller."""
    return NotFound(Reason.UNKNOWN_SPECIALIST, "There is no such specialist; `tailor specialist list` lists them.")


def _draft(tx: Transaction, draft_id: str, may_use: Callable[[str], bool]) -> Draft:
    draft = tx.draft(draft_id)
    if draft is None or (draft.specialist and not may_use(draft.specialist)):
        raise _no_draft()
    return draft


def _no_draft() -> NotFound:
    return NotFound(Reason.UNKNOWN_DRAFT, "There is no such draft. A new one takes a moment to be catalogued.")
