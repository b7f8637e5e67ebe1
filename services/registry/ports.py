"""The Protocols of what the registry's handlers need from outside: adapters implement them, tests fake them.

Calls block; every one may raise Unavailable.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from services.registry.domain import (
    Adapter,
    ApiKey,
    Approval,
    Arm,
    Call,
    Canary,
    Decision,
    DocumentState,
    Draft,
    Erasure,
    ErasureReceipt,
    Evaluation,
    Fact,
    Feedback,
    ForgottenBy,
    Judgement,
    OperatorDecision,
    Outcome,
    Replica,
    ScoredAdapter,
    Serving,
    Specialist,
    Taint,
    Verdict,
)
from services.registry.outcome_domain import DeliverableText, DraftOutcome, FinalText
from services.registry.people_domain import OpenIdAccount, Person, Session
from services.registry.rules.canary import ArmReports
from services.registry.rules.judging import ExpertDecision, StoredDraft
from tailor.datasets import DatasetManifest
from tailor.document_scores import DocumentScore
from tailor.rounds import RoundProgress
from tailor.storage.ref import Ref
from tailor.words import DatasetKind, Labels


class Specialists(Protocol):
    """Definitions, by name."""

    def find(self, name: str) -> Specialist | None: ...
    def lock(self, name: str) -> Specialist | None:
        """Find a definition. Nobody else changes it, or what it serves, until the transaction ends."""
        ...

    def save(self, specialist: Specialist) -> None:
        """Store a definition and publish it."""
        ...


class Servings(Protocol):
    """The adapter that each specialist serves, by generation."""

    def current(self, name: str) -> Serving:
        """Generation 0 before the first promotion."""
        ...

    def list(self, name: str) -> Sequence[Serving]:
        """All generations, newest first."""
        ...

    def save(self, serving: Serving) -> None:
        """Store a decision and publish it. The primary key refuses a second decision for a generation."""
        ...


class CatalogueFacts(Protocol):
    """Facts of other services. Saving one again replaces it."""

    def save(self, fact: Fact) -> None: ...
    def find_document(self, document_id: str) -> DocumentState | None:
        """The newest version of a document in the catalogue."""
        ...

    def drop_document(self, document_id: str) -> None:
        """Remove a document from the catalogue. The states of its submissions stay."""
        ...

    def save_document_state(self, state: DocumentState) -> None:
        """Store a submission's state. `ingested` never replaces a later state."""
        ...

    def save_replica(self, replica: Replica) -> None:
        """Store a replica's report unless a newer one is known."""
        ...

    def save_dead_letter(self, event_id: str, topic: str) -> None: ...
    def save_adapter(self, adapter: Adapter, payload: bytes) -> None: ...
    def find_adapter(self, digest: str) -> Adapter | None: ...
    def save_draft(self, draft: Draft, payload: bytes) -> None: ...
    def find_draft(self, draft_id: str) -> Draft | None: ...


class Evaluations(Protocol):
    """Evaluations and the gate's decisions."""

    def save(self, evaluation: Evaluation, verdict: Verdict) -> None: ...
    def find_decision(self, evaluation_id: str) -> Decision | None: ...
    def find_newest(self, adapter_digest: str) -> Evaluation | None: ...
    def find_newest_of(self, specialist: str) -> Evaluation | None:
        """The newest evaluation of any of a specialist's adapters."""
        ...


class Judgements(Protocol):
    """Experts' judgements."""

    def find(self, judgement_id: str) -> Judgement | None: ...
    def measure_round(self, specialist: Specialist, new: Sequence[tuple[str, str]]) -> RoundProgress | None:
        """Progress towards the specialist's next round with new pairs of drafts, the better one first.

        None if its programme does not learn from rankings.
        """
        ...

    def save(self, judgement: Judgement) -> None:
        """Store a judgement and publish it, once."""
        ...

    def retract(self, judgement: Judgement, specialist: Specialist) -> None:
        """Publish that its expert took it back, once. It no longer counts, and `find` still finds it."""
        ...


class FeedbackStore(Protocol):
    """Callers' feedback on drafts."""

    def save(self, feedback: Feedback) -> None:
        """Store feedback, or replace the one with its id. Deletes edited texts that have expired."""
        ...


class Outcomes(Protocol):
    """Outcomes of drafts. Erasing a deliverable deletes what is stored about its draft."""

    def save(self, outcome: DraftOutcome) -> None:
        """Store an outcome, or replace the one with its id."""
        ...

    def save_final_text(self, final: FinalText) -> None:
        """Store or replace what became of a draft. Feedback never replaces the entry of a deliverable."""
        ...

    def find_unmeasured(self, draft_id: str) -> DeliverableText | None:
        """The draft's deliverable if its share is not known and it is still catalogued."""
        ...


class UseStore(Protocol):
    """What the ledger adds up. Saving something again has no effect."""

    def save_serving(self, draft: Draft, now: datetime) -> None:
        """Store the device time of a draft, if it has any. `now` counts for a draft without a time."""
        ...

    def save_files(self, owner: str, specialist: str, files: Mapping[str, int], create_time: datetime) -> None:
        """Store the bytes, by SHA-256, of the files of a dataset or adapter."""
        ...

    def mark_deleted(self, owners: Collection[str], now: datetime) -> None:
        """Record that the files of datasets or adapters are no longer stored. The first time stays."""
        ...

    def save_judging_time(self, judgement_id: str, specialist: str, seconds: float) -> None: ...


class JudgingStore(Protocol):
    """Drafts that experts can judge, and what experts decided about their prompts."""

    def list_drafts(self, specialist: str, since: datetime, limit: int) -> Sequence[StoredDraft]:
        """The specialist's drafts whose texts are stored, newest first."""
        ...

    def list_decisions(self, specialist: str, since: datetime) -> Sequence[ExpertDecision]: ...
    def record(self, expert_id: str, specialist: str, prompts: Collection[str], judgement_id: str = "") -> None:
        """Record that an expert judged prompts, or skipped them if there is no judgement. Idempotent."""
        ...

    def find_last(self, expert_id: str, specialist: str) -> ExpertDecision | None:
        """The expert's newest decision that was not withdrawn."""
        ...

    def withdraw(self, decision: ExpertDecision) -> None:
        """Forget a decision, so that its prompts wait for the expert again."""
        ...

    def has_dataset_since(self, specialist: str, time: datetime, kinds: Collection[DatasetKind]) -> bool:
        """True if a dataset of one of the kinds was built after this time."""
        ...

    def list_own(
        self, expert_id: str, specialist: str, before: int | None, limit: int
    ) -> Sequence[tuple[int, Judgement]]:
        """Positions and judgements of an expert, newest first, each once."""
        ...


class Keys(Protocol):
    """API keys; of a secret, only the SHA-256."""

    def save(self, key: ApiKey, secret_sha256: str) -> None:
        """Store a key. A known key keeps its hash."""
        ...

    def find(self, key_id: str) -> ApiKey | None: ...
    def find_by_hash(self, secret_sha256: str) -> ApiKey | None: ...


class PeopleStore(Protocol):
    """People who may sign in to the console; of codes and secrets, only the SHA-256. A locked person stays as they are until the
    transaction ends."""

    def add(self, person: Person, invitation_sha256: str) -> bool:
        """Store a person with the hash of an invitation's code, which may be empty; False if another has their mail address."""
        ...

    def find(self, person_id: str) -> Person | None: ...
    def lock(self, person_id: str) -> Person | None: ...
    def lock_invited(self, invitation_sha256: str) -> Person | None: ...
    def lock_by_mail(self, mail: str) -> Person | None: ...
    def lock_by_secret(self, secret_sha256: str) -> Person | None: ...
    def lock_by_identity(self, identity: OpenIdAccount) -> Person | None: ...
    def invite(self, person: Person, invitation_sha256: str) -> None:
        """Store a new invitation and its expiry. It replaces an earlier one, the secret and the linked account."""
        ...

    def accept(self, person_id: str, secret_sha256: str) -> None:
        """Replace a person's invitation by a secret."""
        ...

    def link(self, person_id: str, identity: OpenIdAccount) -> None:
        """Replace a person's invitation by an account at the OpenID provider."""
        ...

    def remove(self, person_id: str) -> None:
        """Mark a person as removed; deletes what names them and what they sign in with."""
        ...


class Sessions(Protocol):
    """Sessions on the console, by the SHA-256 of their secret."""

    def add(self, session_sha256: str, session: Session, limit: int) -> None:
        """Store a session. Deletes expired ones, and the oldest ones of its holder beyond the limit."""
        ...

    def find(self, session_sha256: str) -> tuple[str, datetime] | None:
        """The id of the holder and the time of expiry, which may have passed."""
        ...

    def end(self, session_sha256: str) -> None: ...
    def end_all(self, holder_id: str) -> None: ...


class Canaries(Protocol):
    """Canaries and their calls. At most one runs per specialist."""

    def start(self, canary: Canary) -> None: ...
    def find_running(self, specialist: str) -> Canary | None:
        """The running canary without its arms."""
        ...

    def list_running(self) -> Sequence[str]:
        """Specialists with a running canary."""
        ...

    def save_call(self, call: Call) -> None:
        """Count a call, once."""
        ...

    def measure(self, canary: Canary) -> tuple[Arm, Arm]:
        """The arms of the canary and of the incumbent."""
        ...

    def list_reports(self, canary: Canary) -> ArmReports:
        """Reports of the policy's outcome on the drafts of the canary and of the incumbent, since it started; none without an outcome."""
        ...

    def end(self, specialist: str, outcome: Outcome, reason: str) -> None:
        """End the running canary, if there is one, with its arms."""
        ...

    def defer(self, specialist: str, adapter_digest: str) -> None:
        """Have an adapter evaluated again after the running canary. A later call replaces an earlier one."""
        ...

    def list_deferred(self) -> Mapping[str, str]:
        """Adapters to evaluate now, each with a request id that stays the same until `resume`."""
        ...

    def resume(self, adapter_digest: str) -> None:
        """Take an adapter off the list of `list_deferred`."""
        ...


class Approvals(Protocol):
    """Adapters that passed the gate and need an operator's approval."""

    def wait(self, specialist: str, adapter_digest: str) -> None:
        """Have an adapter wait, unless it waits already or was declined."""
        ...

    def find(self, adapter_digest: str) -> Approval | None: ...
    def end(self, adapter_digest: str, outcome: Approval) -> None:
        """End an adapter's wait. No effect if it never waited."""
        ...

    def end_all(self, specialist: str) -> None:
        """End the wait of all of a specialist's adapters."""
        ...


class OperatorDecisions(Protocol):
    """Operators' decisions. They are never changed."""

    def add(self, decision: OperatorDecision) -> None: ...


class Pins(Protocol):
    """Entries that stay at the top of a leaderboard."""

    def set(self, specialist: str, entry: str, *, pinned: bool) -> None:
        """Pin an entry, or stop. Idempotent."""
        ...


class Erasures(Protocol):
    """Erased documents, and what is published of them."""

    def lock(self) -> None:
        """Nobody else erases, lifts or answers until the transaction ends."""
        ...

    def find(self, erasure_id: str) -> Erasure | None: ...

    def list(self, before: int | None, limit: int) -> Sequence[tuple[int, str]]:
        """Positions and ids, newest first."""
        ...

    def save(self, erasure: Erasure) -> None: ...

    def publish(
        self,
        erasure_id: str,
        document_id: str,
        datasets: Sequence[str],
        taints: Sequence[Taint],
        superseded_by: tuple[int, str] | None = None,
    ) -> None:
        """Publish that a document is erased; with the sequence and digest of a version, that it is superseded by that."""
        ...

    def add_superseded(self, erasure: Erasure) -> None:
        """Store an erasure under which documents are superseded, or add its documents to the stored one.

        It waits for answers about them, and has no receipt until then.
        """
        ...

    def find_by_document(self, document_ids: Sequence[str]) -> Mapping[str, str]:
        """Erasure ids of those documents that are erased now."""
        ...

    def is_erased(self, document_id: str) -> bool:
        """True if a document is erased; this stays so until the transaction ends."""
        ...

    def lift(self, erasure_id: str, document_id: str) -> None:
        """Lift a document's erasure and publish it."""
        ...

    def forget_document(self, document_id: str) -> Mapping[str, int]:
        """Remove a document from the catalogue; counts of its entries and submissions."""
        ...

    def forget_drawn_drafts(self, document_id: str) -> int:
        """Take the drafts whose prompts were drawn from a document out of the experts' queue; the number of drafts."""
        ...


class ErasureAnswers(Protocol):
    """The services' answers to erasures, and the receipts."""

    def save_answer(self, answer: ForgottenBy) -> None:
        """Store a service's answer. The first answer about a document stays."""
        ...

    def list_answers(self, erasure_id: str) -> Sequence[ForgottenBy]: ...

    def save_receipt(self, erasure_id: str, receipt: ErasureReceipt) -> None: ...


class Lineage(Protocol):
    """What was trained on which documents."""

    def save_documents(self, dataset_digest: str, document_ids: Sequence[str]) -> None:
        """Add documents of a dataset. Idempotent."""
        ...

    def save_dataset(self, dataset_digest: str, manifest: DatasetManifest) -> None:
        """Record that all documents of a dataset have been saved."""
        ...

    def has_dataset(self, dataset_digest: str) -> bool:
        """True if all documents of a dataset have been saved."""
        ...

    def find_datasets(self, document_ids: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
        """Sorted digests of the datasets with rows of each document."""
        ...

    def save_superseded(self, datasets: Collection[str], erasure_id: str) -> None:
        """Record that datasets have rows of a superseded version. The first erasure of a dataset stays."""
        ...

    def find_superseding(self, dataset_digest: str) -> str:
        """The erasure under which a dataset was superseded; empty if none."""
        ...

    def find_erased(self, dataset_digest: str) -> Mapping[str, str]:
        """The documents of a dataset that are erased now, with their erasure ids."""
        ...

    def save_draft_adapters(self, dataset_digest: str, adapters: Collection[str]) -> None:
        """Add adapters whose drafts are among a dataset's pairs. Idempotent."""
        ...

    def find_descendants(self, datasets: Collection[str], adapters: Collection[str]) -> Sequence[Adapter]:
        """The named adapters, those trained on the datasets, and all that came from them.

        An adapter comes from its parent, its reward adapter, the adapter merged into its base, and those whose drafts it learned from.
        """
        ...


class Taints(Protocol):
    """Adapters that learned from erased documents."""

    def find_origin_taints(self, adapter: Adapter) -> Sequence[Taint]:
        """The taints of what an adapter comes from, as `find_descendants` has it."""
        ...

    def find_draft_taints(self, dataset_digest: str) -> Sequence[Taint]:
        """The taints of the adapters whose drafts are among a dataset's pairs."""
        ...

    def save_taint(self, taint: Taint) -> None:
        """Mark an adapter. The first erasure's mark stays; a retired adapter stays retired."""
        ...

    def find_taint(self, adapter_digest: str) -> Taint | None: ...

    def list_taints(self, erasure_id: str) -> Sequence[Taint]: ...


class DocumentScores(Protocol):
    """The newest score of each document of a specialist in the quiz."""

    def save(self, adapter: ScoredAdapter, scores: Sequence[DocumentScore]) -> None:
        """Store scores, except those of erased documents and those older than the stored ones. Idempotent."""
        ...


@dataclass(frozen=True)
class Transaction:
    """The catalogue's database within one transaction. What it publishes is sent after the commit."""

    specialists: Specialists
    servings: Servings
    facts: CatalogueFacts
    evaluations: Evaluations
    judgements: Judgements
    keys: Keys
    people: PeopleStore
    sessions: Sessions
    canaries: Canaries
    approvals: Approvals
    decisions: OperatorDecisions
    pins: Pins
    erasures: Erasures
    erasure_answers: ErasureAnswers
    lineage: Lineage
    taints: Taints
    document_scores: DocumentScores
    feedback: FeedbackStore
    outcomes: Outcomes
    judging: JudgingStore
    uses: UseStore


Begin = Callable[[], AbstractContextManager[Transaction]]


class DatasetDocuments(Protocol):
    """Stored datasets, and scores of their documents. Methods block. They raise NotFound for a dataset or scores that were deleted,
    Unavailable while the store does not answer, and FailedPrecondition (INVALID_MANIFEST, INVALID_DATASET, INVALID_DOCUMENT_SCORES,
    CORRUPT_OBJECT) for damaged ones."""

    def read_manifest(self, manifest: Ref) -> DatasetManifest: ...
    def read_document_ids(self, manifest: DatasetManifest) -> Iterator[Sequence[str]]:
        """Stream the ids of its documents in batches."""
        ...

    def read_scores(self, scores: Ref) -> Iterator[Sequence[DocumentScore]]:
        """Stream the scores of a file in batches."""
        ...


class ComparedTexts(Protocol):
    """Anonymised texts. Methods block. They raise Unavailable while the store does not answer, FailedPrecondition for a damaged text."""

    def read_answer(self, draft: Ref) -> str | None:
        """The answer of a draft; None once it has expired."""
        ...

    def read_document(self, document: Ref) -> str | None:
        """The text of a document; None once it is erased or superseded."""
        ...


# The text without personal data, by the anonymization policy for the labels.
Anonymize = Callable[[str, Labels], str]
# Raises NotFound or InvalidArgument if training does not have the base and the recipes.
CheckProgramme = Callable[[str, Sequence[str]], None]

# Have an adapter evaluated again; the second argument is the request id.
RequestEvaluation = Callable[[str, str], None]

# Sign a receipt's body with the registry's identity key.
Sign = Callable[[str], ErasureReceipt]
