"""The Protocols of what the console needs from the other services, in the services' own messages. Tests fake them.

Every call may raise a TailorError.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from services.console.domain import (
    InvitationTerms,
    Judgement,
    KeyTerms,
    Page,
    PassageDecision,
    ProviderIdentity,
    Question,
    RowQuery,
    RunTerms,
    SignInAttempt,
    Visitor,
)
from tailor.api.anonymization.v1.replaced_pb2 import GetReplacedResponse, ReplacedString
from tailor.api.anonymization.v1.review_pb2 import (
    DrawSampleResponse,
    GetResidualReportResponse,
    NextPassageResponse,
    RareCombination,
    ReviewPassage,
    SignedStatement,
)
from tailor.api.evaluation.v1.evaluation_pb2 import (
    CompareEvaluationsRequest,
    CompareEvaluationsResponse,
    GetEvaluationResponse,
)
from tailor.api.events.v1.drafts_pb2 import JudgementRecorded
from tailor.api.events.v1.models_pb2 import DatasetBuilt, RunProgressed, SpecialistChanged, SpecialistServing
from tailor.api.inference.v1.inference_pb2 import GetDraftResponse, ServedSpecialist, StreamGenerateResponse
from tailor.api.ingestion.v1.ingestion_pb2 import GetSubmissionResponse
from tailor.api.registry.v1.audit_pb2 import GetAuditResponse
from tailor.api.registry.v1.judging_pb2 import ListOwnJudgementsResponse, NextPairResponse
from tailor.api.registry.v1.panel_pb2 import ProposeGuidelinesResponse
from tailor.api.registry.v1.people_pb2 import AcceptInvitationResponse, Person
from tailor.api.registry.v1.registry_pb2 import (
    CatalogueAdapter,
    CatalogueDocument,
    CreateSpecialistResponse,
    Erasure,
    GetDatasetResponse,
    GetFlowResponse,
    GetLeaderboardResponse,
    GetSpecialistResponse,
    Key,
    OperatorDecision,
    TraceResponse,
    UpdateSpecialistResponse,
)
from tailor.api.synthetic.v1.synthesis_pb2 import CountCommentsResponse, Sample, Synthesis
from tailor.api.synthetic.v1.synthetic_pb2 import (
    BuildDatasetResponse,
    CountNearDuplicatesResponse,
    GetBuildStateResponse,
    ListOriginsResponse,
    ListRowsResponse,
)
from tailor.api.training.v1.training_pb2 import Run, RunPlan, WatchRunResponse

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True)
class NewKey:
    """A new API key with its secret, which is shown once, never stored, and never logged."""

    key: Key
    secret: str = field(repr=False)


class CloseableStream(Protocol[T_co]):
    """Items as they arrive. Iterating may block."""

    def __iter__(self) -> Iterator[T_co]: ...
    def close(self) -> None:
        """End the stream. Safe from another thread while an iteration waits."""
        ...


class DocumentReader(Protocol):
    """The documents that the registry knows."""

    def list_documents(self, token: str, specialist: str, size: int, dataset: str) -> Page[CatalogueDocument]:
        """Documents by id; of a specialist or of a dataset unless it is empty."""
        ...

    def list_rejected(self, token: str, size: int) -> Page[CatalogueDocument]:
        """Rejected submissions by id."""
        ...

    def get_document(self, document_id: str) -> CatalogueDocument:
        """An anonymised document. Raises NotFound."""
        ...


class CatalogueReader(DocumentReader, Protocol):
    """What the registry knows."""

    def get_flow(self) -> GetFlowResponse: ...
    def get_audit(self, specialist: str) -> GetAuditResponse: ...
    def get_dataset(self, digest: str) -> DatasetBuilt: ...
    def describe_dataset(self, digest: str) -> GetDatasetResponse:
        """A dataset with its tokens and what it leaves out."""
        ...

    def list_datasets(self, token: str, specialist: str = "") -> Page[DatasetBuilt]: ...
    def get_adapter(self, digest: str) -> CatalogueAdapter: ...
    def list_adapters(self, token: str, specialist: str = "") -> Page[CatalogueAdapter]: ...
    def list_specialists(self, token: str) -> Page[GetSpecialistResponse]: ...
    def trace(self, draft_id: str) -> TraceResponse: ...
    def list_erasures(self, token: str) -> Page[Erasure]: ...


class Decisions(Protocol):
    """What experts and operators decide, recorded by the registry. Raises Aborted if the generation is not the expected one."""

    def promote(self, specialist: str, adapter_digest: str, expected_generation: int) -> SpecialistServing: ...
    def roll_back(self, specialist: str, expected_generation: int) -> SpecialistServing: ...
    def start_canary(self, specialist: str, adapter_digest: str, expected_generation: int) -> SpecialistServing: ...
    def stop_canary(self, specialist: str, expected_generation: int) -> SpecialistServing: ...
    def record_judgement(self, judgement: Judgement, request_id: str, key_id: str) -> JudgementRecorded:
        """Returns the judgement as recorded, with the progress towards the next round. Idempotent by request id.

        `key_id` names the expert's API key; empty for the operator who signed in by password.
        """
        ...


class Operations(Protocol):
    """What operators change and decide, recorded by the registry with the key of the visitor who decides."""

    def create_specialist(self, definition: SpecialistChanged, request_id: str) -> CreateSpecialistResponse:
        """Idempotent. Raises AlreadyExists (SPECIALIST_EXISTS), InvalidArgument by field."""
        ...

    def update_specialist(self, definition: SpecialistChanged, *, validate_only: bool) -> UpdateSpecialistResponse: ...
    def delete_specialist(self, name: str, reason: str, key_id: str) -> None: ...
    def override(
        self, specialist: str, adapter_digest: str, expected_generation: int, reason: str, key_id: str
    ) -> SpecialistServing: ...
    def list_approvals(self, token: str, specialist: str = "") -> Page[CatalogueAdapter]: ...
    def approve(self, adapter_digest: str, reason: str, key_id: str) -> SpecialistServing: ...
    def decline(self, adapter_digest: str, reason: str, key_id: str) -> None: ...
    def list_decisions(self, specialist: str, token: str = "") -> Page[OperatorDecision]:
        """Decisions, newest first."""
        ...

    def get_leaderboard(self, specialist: str, metric: str) -> GetLeaderboardResponse: ...
    def pin_entry(self, specialist: str, entry: str, *, pinned: bool) -> None: ...


class ApiKeys(Protocol):
    """The registry's API keys."""

    def list_keys(self, token: str) -> Page[Key]: ...
    def create_key(self, terms: KeyTerms, created_by: str) -> NewKey:
        """Create a key for the visitor with this key; empty for the operator by password."""
        ...

    def revoke_key(self, key_id: str, revoked_by: str) -> None: ...


@dataclass(frozen=True)
class Invitation:
    """An invited person, and the code of their invitation; empty for a person who signs in by the OpenID provider."""

    person: Person
    code: str


class PeopleDirectory(Protocol):
    """The registry's people. `invited_by` and `removed_by` name the visitor's key or person; empty for the operator by password."""

    def invite(self, terms: InvitationTerms, invited_by: str) -> Invitation:
        """Raises InvalidArgument (INVALID_PERSON), AlreadyExists (PERSON_EXISTS), PermissionDenied (KEY_IS_LIMITED)."""
        ...

    def renew(self, person_id: str, invited_by: str) -> Invitation:
        """Invite a person again. Raises NotFound (UNKNOWN_PERSON) for an unknown or removed one."""
        ...

    def list_people(self, token: str) -> Page[Person]: ...
    def remove(self, person_id: str, removed_by: str) -> None: ...
    def accept_invitation(self, code_sha256: str) -> AcceptInvitationResponse:
        """Exchange a code for the person's secret. Raises NotFound (UNKNOWN_INVITATION)."""
        ...


class SessionRegistry(Protocol):
    """The registry's sessions. The first three begin one and return its secret; they raise NotFound for an unknown credential."""

    def begin_with_key(self, secret_sha256: str) -> tuple[Visitor, str]:
        """Raises PermissionDenied (KEY_IS_LIMITED) too."""
        ...

    def begin_with_secret(self, secret_sha256: str) -> tuple[Visitor, str]: ...
    def begin_with_identity(self, identity: ProviderIdentity) -> tuple[Visitor, str]: ...
    def get(self, session_sha256: str) -> Visitor:
        """Whose session it is. Raises NotFound (UNKNOWN_SESSION) once it has ended."""
        ...

    def end(self, session_sha256: str) -> None: ...


class OpenIdProvider(Protocol):
    """The company's OpenID provider. Both calls may raise Unavailable (PROVIDER_UNAVAILABLE)."""

    def authorize(self, attempt: SignInAttempt) -> str:
        """The provider's address at which a browser's user signs in."""
        ...

    def identify(self, attempt: SignInAttempt, code: str) -> ProviderIdentity:
        """Redeem the code with which the user came back.

        Raises Unauthenticated (INVALID_SIGN_IN) for a code or a token that is not valid for this attempt."""
        ...


@dataclass(frozen=True)
class RunReports:
    """A run and its workers' reports in the order in which they came. `complete` is False if reading took too long."""

    run: Run
    reports: tuple[RunProgressed, ...] = ()
    complete: bool = True


class RunReader(Protocol):
    """Runs."""

    def get_run(self, run_id: str) -> Run: ...
    def list_runs(self, token: str, specialist: str = "") -> Page[Run]: ...
    def watch_run(self, run_id: str) -> CloseableStream[WatchRunResponse]: ...
    def read_reports(self, run_id: str) -> RunReports:
        """The run with the reports of its workers so far. Raises NotFound."""
        ...


class RunCommands(Protocol):
    """What engineers do with runs."""

    def plan(self, terms: RunTerms) -> RunPlan:
        """A forecast. Raises InvalidArgument, NotFound."""
        ...

    def create(self, terms: RunTerms, request_id: str) -> Run:
        """Queue a run, or resume the same one if it was cancelled or failed. Raises as `plan`, and FailedPrecondition (DOES_NOT_FIT)."""
        ...

    def cancel(self, run_id: str) -> Run:
        """End a run. Raises NotFound, FailedPrecondition."""
        ...

    def approve(self, run_id: str, approved_by: str) -> Run:
        """Queue a run that waits for approval, in the name of a key or person. Raises NotFound, FailedPrecondition."""
        ...


class DatasetBuilds(Protocol):
    """The builds of datasets."""

    def build(self, specialist: str, kind: str, request_id: str) -> BuildDatasetResponse | None:
        """Build a dataset; None if the build takes longer than some seconds, and continues. Raises FailedPrecondition, NotFound."""
        ...

    def get_state(self, specialist: str) -> GetBuildStateResponse:
        """What the next datasets wait for. Raises NotFound."""
        ...

    def list_origins(self, specialist: str) -> ListOriginsResponse:
        """Sources and publishers, what waits for a look first. Raises NotFound."""
        ...

    def admit_origin(self, specialist: str, kind: str, name: str, admitted_by: str) -> None:
        """Let the specialist learn from an origin, in the name of a key or person. Raises NotFound, InvalidArgument."""
        ...


class RowSource(Protocol):
    """The rows of datasets. Raises NotFound for a dataset that does not exist."""

    def find_newest(self, specialist: str) -> str:
        """The digest of the specialist's newest dataset of documents."""
        ...

    def list_rows(self, query: RowQuery, token: str) -> ListRowsResponse:
        """A page of rows; it may be empty although more follow."""
        ...


class SynthesisReader(Protocol):
    """Syntheses, and decisions about their rows."""

    def list_syntheses(self, token: str, specialist: str = "") -> Page[Synthesis]: ...
    def get_synthesis(self, synthesis_id: str) -> Synthesis: ...
    def list_samples(self, synthesis_id: str, state: str, token: str) -> Page[Sample]:
        """Samples of a state, such as `pending`; all if it is empty."""
        ...

    def review_sample(self, synthesis_id: str, row_id: str, *, accept: bool) -> None: ...
    def count_comments(self, specialist: str) -> CountCommentsResponse: ...


class PanelReader(Protocol):
    """Wishes that several of a specialist's experts share."""

    def propose_guidelines(self, specialist: str) -> ProposeGuidelinesResponse: ...


class PassageReview(Protocol):
    """What the barrier left. `reviewer` is the visitor's key; empty for one who signed in by password."""

    def draw_sample(self, size: int, reviewer: str, *, replace: bool) -> DrawSampleResponse: ...
    def next_passage(self, kind: str, reviewer: str) -> NextPassageResponse:
        """A passage of a kind, `sample` or `disagreement`; of any if it is empty."""
        ...

    def decide(self, decision: PassageDecision, reviewer: str) -> None: ...
    def undo(self, reviewer: str) -> str:
        """Take back the reviewer's last decision; returns the passage's id. Raises NotFound."""
        ...

    def get_passage(self, document_id: str, number: int) -> ReviewPassage:
        """Raises NotFound."""
        ...

    def get_report(self) -> GetResidualReportResponse: ...
    def list_rare_combinations(self, token: str) -> Page[RareCombination]: ...
    def sign_statement(self, reviewer: str) -> SignedStatement: ...
    def list_replaced(self, token: str) -> Page[ReplacedString]: ...
    def get_replaced(self, entity_type: str, surrogate: str, reviewer: str) -> GetReplacedResponse:
        """A string that is replaced in many documents, with ten places. Raises NotFound."""
        ...

    def decide_replaced(self, entity_type: str, surrogate: str, reviewer: str, *, allow: bool) -> str:
        """Allow the string, or keep it replaced; returns the barrier digest in force then. Raises FailedPrecondition (PLACES_NOT_SEEN)."""
        ...


class JudgingQueue(Protocol):
    """The drafts that an expert judges. `key_id` names the expert's API key."""

    def next_pair(self, specialist: str, key_id: str) -> NextPairResponse: ...
    def skip_pair(self, specialist: str, draft_id: str, key_id: str) -> None:
        """Raises NotFound (UNKNOWN_DRAFT)."""
        ...

    def undo(self, specialist: str, decision: str, key_id: str) -> None:
        """Take back the last decision. Raises NotFound (NOTHING_TO_UNDO), FailedPrecondition (JUDGEMENT_IN_DATASET)."""
        ...

    def list_own(self, specialist: str, token: str, key_id: str) -> ListOwnJudgementsResponse: ...


class PromptDraws(Protocol):
    """Prompts that are drawn from datasets."""

    def draw(self, specialist: str) -> str:
        """Draw a prompt and have it answered; returns the draft's id.

        Raises FailedPrecondition (PROMPTS_NOT_DRAWN, NO_DATASET, NO_ADAPTER, NO_PROMPT_LEFT), ResourceExhausted (ENOUGH_PROMPTS_WAIT) and
        Aborted (DRAWING_RUNNING).
        """
        ...


class AnswerSource(Protocol):
    """Answers and their drafts."""

    def list_served(self) -> tuple[ServedSpecialist, ...]: ...
    def ask(self, question: Question) -> CloseableStream[StreamGenerateResponse]: ...
    def get_draft(self, draft_id: str) -> GetDraftResponse: ...
    def regenerate(self, draft_id: str) -> str:
        """Answer a draft's stored prompt again; returns the new draft's id. Raises NotFound, FailedPrecondition (DRAFT_WITHOUT_TEXT)."""
        ...

    def edit_draft(self, draft_id: str, text: str) -> str:
        """Store a draft as an expert edited it; returns the new draft's id.

        Raises NotFound, FailedPrecondition (DRAFT_WITHOUT_TEXT), InvalidArgument (INVALID_EDIT).
        """
        ...


@dataclass(frozen=True)
class Services:
    """The services that the console calls."""

    catalogue: CatalogueReader
    decisions: Decisions
    operations: Operations
    keys: ApiKeys
    people: PeopleDirectory
    sessions: SessionRegistry
    training: RunReader
    runs: RunCommands
    builds: DatasetBuilds
    inference: AnswerSource
    syntheses: SynthesisReader
    rows: RowSource
    review: PassageReview
    judging: JudgingQueue
    draws: PromptDraws
    panel: PanelReader
    get_evaluation: Callable[[str], GetEvaluationResponse]  # by adapter digest
    evaluate: Callable[[str, str], str]  # by adapter digest and request id; returns the evaluation's id
    compare_evaluations: Callable[[CompareEvaluationsRequest], CompareEvaluationsResponse]
    count_near_duplicates: Callable[[str], CountNearDuplicatesResponse]  # by specialist; empty for all
    is_healthy: Callable[[str], bool]  # by service
    start_replay: Callable[[str, str], None]  # by the barrier digest in force, and the key of the visitor who asks
    get_submission: Callable[
        [str, str], GetSubmissionResponse
    ]  # by the publisher's own id, and the key of the engineer who asks
