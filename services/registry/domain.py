"""The registry's values: what the catalogue holds, as frozen dataclasses. Imports no library."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum

from tailor.pipelines import Pipeline, resolve_pipeline
from tailor.rankings import ComparedDrafts, compare_drafts, list_decided_pairs
from tailor.rounds import RoundProgress
from tailor.storage.ref import Ref
from tailor.values import (
    DEFAULT_JUDGING_CRITERIA,
    EvaluationPolicy,
    Filters,
    JudgingCriterion,
    Labels,
    MetricDefinition,
    RowPolicy,
    SamplingDefaults,
    Selection,
)

POLICY = "policy"
# What happens to adapters trained on an erased document.
MARK, RETIRE = "mark", "retire"
# What happens to an adapter that passes the gate.
AUTOMATIC, APPROVAL = "automatic", "approval"
# Outcomes that a canary can be decided by.
EDIT_RETENTION, SATISFACTION, MINUTES = "edit_retention", "satisfaction", "minutes"
# A ready replica reports every 10 seconds. After this silence it does not count as ready.
MAX_SILENCE = timedelta(seconds=30)


class FactKind(Enum):
    """Facts that the catalogue stores without deciding anything."""

    DATASET = "dataset"
    RUN = "run"
    ADAPTER = "adapter"
    DRAFT = "draft"
    SERVED = "served"


@dataclass(frozen=True)
class Fact:
    """A published fact, found by kind and id, listed by specialist, newest first. `payload` is the event's own encoding."""

    kind: FactKind
    fact_id: str
    specialist: str
    payload: bytes


@dataclass(frozen=True)
class RebuildPolicy:
    """When a dataset is due, and the ranked prompts that a round needs; 0 means as many as are expected to hold out enough."""

    min_new_items: int = 0
    quiet_seconds: int = 0
    min_interval_seconds: int = 0
    min_ranked_prompts: int = 0


@dataclass(frozen=True)
class PrimaryMetric:
    """The metric that decides, and the gains that the lower end of its interval must exceed, in its unit.

    Without a metric it is the win rate if the candidate learned from new rankings, else the log-likelihood of the references."""

    metric: str = ""
    min_gain: float = 0.0
    min_gain_over_incumbent: float = 0.0


@dataclass(frozen=True)
class GuardMetric:
    """A metric that must not be lost, and the admitted loss in its unit."""

    metric: str
    margin: float


@dataclass(frozen=True)
class Gate:
    """The conditions of serving. `beat` names the models to beat; empty means the defaults.

    `max_parity` is in nats per token; 0 means the default. A limit that is None is not checked, except `max_memorised`, which is 0."""

    primary: PrimaryMetric = field(default_factory=PrimaryMetric)
    guards: tuple[GuardMetric, ...] = ()
    beat: tuple[str, ...] = ()
    min_rows: int = 0
    max_parity: float = 0.0
    max_forgetting: float | None = None
    max_refusal_drop: float | None = None
    max_memorised: int | None = None


@dataclass(frozen=True)
class CanaryPolicy:
    """The share of the callers that a canary serves, and when it is promoted or withdrawn.

    `outcome` is one of EDIT_RETENTION, SATISFACTION and MINUTES, or empty; `max_outcome_loss` is in its unit, for minutes a share of them.
    """

    percent: int = 10
    min_calls: int = 50
    max_seconds: int = 86_400
    max_error_rate_increase: float = 0.02
    max_latency_ratio: float = 1.5
    outcome: str = ""
    min_reports: int = 20
    max_outcome_loss: float = 0.0


@dataclass(frozen=True)
class JudgingPolicy:
    """The share of the prompts that several experts judge, the number of these experts, and the drafts that they rank.

    `criteria` are the specialist's own; without them, those of `effective_criteria` apply. With `draw_prompts`, prompts of the newest
    dataset are drawn if too few wait.
    """

    overlap_share: float = 0.25
    experts: int = 3
    drafts: int = 2
    criteria: tuple[JudgingCriterion, ...] = ()
    draw_prompts: bool = True

    @property
    def effective_criteria(self) -> tuple[JudgingCriterion, ...]:
        """The criteria by which experts mark drafts."""
        return self.criteria or DEFAULT_JUDGING_CRITERIA


@dataclass(frozen=True)
class Specialist:
    """A named purpose. `recipe` is that of the stage `sft`, `recipes` are those of the other `stages`; no stages mean only `sft`."""

    name: str
    base: str
    recipe: str
    description: str = ""
    selection: Selection = field(default_factory=Selection)
    rebuild: RebuildPolicy = field(default_factory=RebuildPolicy)
    gate: Gate = field(default_factory=Gate)
    house_terms: tuple[str, ...] = ()
    system_prompt: str = ""
    use_teacher: bool = False
    stages: tuple[str, ...] = ()
    recipes: Mapping[str, str] = field(default_factory=dict)
    keep_drafts: bool = False
    private_prompts: bool = False
    on_erasure: str = MARK
    filters: Filters = field(default_factory=Filters)
    rows: RowPolicy = field(default_factory=RowPolicy)
    canary: CanaryPolicy | None = None
    sampling: SamplingDefaults = field(default_factory=SamplingDefaults)
    promotion: str = AUTOMATIC
    metrics: tuple[MetricDefinition, ...] = ()
    evaluation: EvaluationPolicy = field(default_factory=EvaluationPolicy)
    monthly_budget: float = 0.0
    max_training_hours: float = 0.0
    judging: JudgingPolicy = field(default_factory=JudgingPolicy)
    knowledge_sources: tuple[str, ...] = ()
    revision: int = 0
    update_time: datetime | None = None
    deleted: bool = False

    @property
    def pipeline(self) -> Pipeline:
        """Its stages with their recipes."""
        return resolve_pipeline(self.stages, self.recipe, self.recipes)

    def same_definition(self, other: "Specialist") -> bool:
        """True if only the revision and time differ."""
        return replace(self, revision=0, update_time=None) == replace(other, revision=0, update_time=None)


@dataclass(frozen=True)
class CataloguedDataset:
    """A dataset that exists, and the adapters whose drafts are among its pairs."""

    digest: str
    manifest: Ref
    create_time: datetime
    draft_adapters: tuple[str, ...] = ()


@dataclass(frozen=True)
class DocumentState:
    """The state of one submission: `ingested`, `anonymized`, `rejected` or `erased`."""

    submission_id: str
    document_id: str
    state: str
    payload: bytes = b""
    sequence: int = 0
    labels: Labels = field(default_factory=Labels)
    reason: str = ""
    findings: Mapping[str, int] = field(default_factory=dict)
    removed: Mapping[str, int] = field(default_factory=dict)
    format: str = ""
    language: str = ""
    char_count: int = 0
    stage: str = ""
    digest: str = ""
    text_sha256: str = ""
    supersede_id: str = ""


@dataclass(frozen=True)
class Adapter:
    """The facts about an adapter that a promotion checks, and what it came from.

    `reward_digest` scored its answers, `base_adapter_digest` was merged into its base; both may be empty. `size_bytes` are those of its
    files, 0 if they are not known.
    """

    digest: str
    kind: str
    specialist: str
    manifest: Ref
    dataset_digest: str
    base: str
    parent_digest: str = ""
    reward_digest: str = ""
    base_adapter_digest: str = ""
    size_bytes: int = 0
    create_time: datetime | None = None


@dataclass(frozen=True)
class Interval:
    """A measured value with its 95 % interval, on a number of rows."""

    value: float
    low: float
    high: float
    rows: int


@dataclass(frozen=True)
class MetricIntervals:
    """A metric's or suite's estimates by model, and the candidate's gain over each other model; positive is better."""

    metric: str
    models: Mapping[str, Interval] = field(default_factory=dict)
    gains: Mapping[str, Interval] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation:
    """A candidate's figures by metric and by suite's measure.

    `held_out_rows` counts the rows that could be evaluated, of which `held_out_pairs` are ranked pairs; `rows` counts those that were.
    `preferences` and `incumbent_preferences` are the datasets of judgements that the two adapters learned from; empty if they did not.
    """

    evaluation_id: str
    adapter_digest: str
    specialist: str
    rows: int
    metrics: Mapping[str, MetricIntervals]
    suites: Mapping[str, MetricIntervals]
    incumbent_generation: int
    incumbent_digest: str = ""
    held_out_rows: int = 0
    held_out_pairs: int = 0
    not_measured: Mapping[str, str] = field(default_factory=dict)
    preferences: str = ""
    incumbent_preferences: str = ""
    payload: bytes = b""

    @property
    def has_new_rankings(self) -> bool:
        """True if the candidate learned from judgements, and the adapter that served from others or from none."""
        return bool(self.preferences) and self.preferences != self.incumbent_preferences

    @property
    def has_other_incumbent(self) -> bool:
        """True if an adapter was serving that is not the evaluated one."""
        return self.incumbent_digest not in ("", self.adapter_digest)


class Decision(Enum):
    """The gate's decision. An undecided adapter is not promoted; a stale one is evaluated again, because another adapter serves now."""

    PASSED = "passed"
    REFUSED = "refused"
    UNDECIDED = "undecided"
    STALE = "stale"


@dataclass(frozen=True)
class Verdict:
    """A decision with a sentence for each condition that led to it, which says what to do."""

    decision: Decision
    reasons: tuple[str, ...] = ()


class AdapterState(Enum):
    """The current state of an adapter. The words are the contract's, in `AdapterState` of registry.proto."""

    REWARD = "reward"
    EVALUATING = "evaluating"
    PASSED = "passed"
    UNDECIDED = "undecided"
    REFUSED = "refused"
    WAITING_FOR_APPROVAL = "waiting for approval"
    DECLINED = "declined"
    CANARY = "canary"
    WITHDRAWN = "withdrawn"
    SERVING = "serving"
    OVERRIDDEN = "overridden"
    REPLACED = "replaced"
    RETIRED = "retired"
    INTERMEDIATE = "intermediate"


class Approval(Enum):
    """What became of an adapter that needs an operator's approval. `ENDED` means approved or promoted."""

    WAITING = "waiting"
    DECLINED = "declined"
    ENDED = "ended"


class DecisionKind(Enum):
    """The decision of an operator."""

    OVERRIDE = "override"
    APPROVAL = "approval"
    DECLINE = "decline"
    DELETION = "deletion"


@dataclass(frozen=True)
class Justification:
    """Who decides, by API key, and why. The reason is anonymised. No key means the operator who signs in to the console by password."""

    key_id: str
    reason: str


@dataclass(frozen=True)
class OperatorDecision:
    """A decision that stays on record, with the gate's verdict at the time. Generation 0 means that it changed nothing that serves."""

    kind: DecisionKind
    specialist: str
    justification: Justification
    create_time: datetime
    adapter_digest: str = ""
    generation: int = 0
    verdict: Verdict | None = None


@dataclass(frozen=True)
class ServingCanary:
    """A candidate that a share of the callers, in percent, gets instead of the serving adapter."""

    adapter_digest: str
    manifest: Ref
    dataset_digest: str
    system_prompt: str
    percent: int


@dataclass(frozen=True)
class Serving:
    """The adapter that a specialist's name means. Generation 0 is before the first promotion; `ended` is after the deletion."""

    specialist: str
    generation: int = 0
    adapter_digest: str = ""
    manifest: Ref | None = None
    dataset_digest: str = ""
    base: str = ""
    previous_digest: str = ""
    system_prompt: str = ""
    private_prompts: bool = False
    canary: ServingCanary | None = None
    ended: bool = False
    overridden: bool = False


@dataclass(frozen=True)
class Replica:
    """The last report of an inference replica. `adapter_digest` is the adapter that its base was made of and stands for, if any."""

    name: str
    base: str
    seen_time: datetime
    leaving: bool = False
    adapter_digest: str = ""

    def is_ready(self, now: datetime) -> bool:
        """True if the replica reported recently and is not leaving."""
        return not self.leaving and now - self.seen_time < MAX_SILENCE


@dataclass(frozen=True)
class ReplicaRollout:
    """A ready replica's answer to a generation: it serves it, refuses it with a reason, or has not reported yet."""

    replica: Replica
    serving: bool = False
    refusal: str = ""


class Outcome(Enum):
    """The state of a canary. `ENDED` means by a promotion, a rollback or an erasure."""

    RUNNING = "running"
    FORWARD = "forward"
    BACK = "back"
    ENDED = "ended"


@dataclass(frozen=True)
class Call:
    """One call of a specialist. Seconds are None without a first token, or without a second one."""

    draft_id: str
    specialist: str
    generation: int
    canary: bool
    failed: bool
    key_id: str
    first_token_seconds: float | None
    token_seconds: float | None


@dataclass(frozen=True)
class Arm:
    """The calls of one arm of a canary: counts of calls, failed calls and API keys, and median seconds.

    `reports` counts reports of the policy's outcome; `outcome` is their mean.
    """

    calls: int = 0
    errors: int = 0
    callers: int = 0
    first_token_seconds: float | None = None
    token_seconds: float | None = None
    reports: int = 0
    outcome: float | None = None

    @property
    def error_rate(self) -> float:
        """Share of the calls that failed, 0 to 1."""
        return self.errors / self.calls if self.calls else 0.0


@dataclass(frozen=True)
class Canary:
    """A try of an adapter on a share of the callers, since `generation`. The arms are stored when it ends."""

    specialist: str
    generation: int
    adapter_digest: str
    policy: CanaryPolicy
    start_time: datetime
    outcome: Outcome = Outcome.RUNNING
    reason: str = ""
    end_time: datetime | None = None
    canary_arm: Arm = Arm()
    incumbent_arm: Arm = Arm()


@dataclass(frozen=True)
class ApiKey:
    """An API key without its secret. No specialists or methods means all that the role may use; 0 calls per minute means no limit.

    `created_by` is the id of a key, the name of a service, with `:` and the id of its visitor's key if it names one, or `installation`.
    """

    key_id: str
    name: str
    role: str
    specialists: tuple[str, ...]
    create_time: datetime
    expire_time: datetime | None = None
    revoked: bool = False
    methods: tuple[str, ...] = ()
    calls_per_minute: int = 0
    created_by: str = ""

    def is_valid(self, now: datetime) -> bool:
        """True if the key is neither revoked nor expired."""
        return not self.revoked and (self.expire_time is None or now < self.expire_time)


@dataclass(frozen=True)
class KeyTerms:
    """The purpose and the limits of a new API key, as in `ApiKey`."""

    name: str
    role: str
    specialists: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    calls_per_minute: int = 0
    expire_time: datetime | None = None


@dataclass(frozen=True)
class Draft:
    """What tracing, judging and comparing need to know of a draft. `text` is None if its text is not stored, or not yet.

    `key_id` is empty if a service asked for it, such as the console. `edit_of` is the draft that an expert edited into this one.
    `compute_seconds` are those of the device that answered. `drawn_from` are the documents of the row whose prompt was drawn; empty if
    somebody sent it.
    """

    draft_id: str
    specialist: str
    adapter_digest: str
    dataset_digest: str
    key_id: str
    prompt_digest: str = ""
    answer_digest: str = ""
    text: Ref | None = None
    generation: int = 0
    create_time: datetime | None = None
    edit_of: str = ""
    compute_seconds: float = 0.0
    compute_device: str = ""
    drawn_from: tuple[str, ...] = ()


class JudgementOutcome(Enum):
    """The answer of an expert to drafts that are compared."""

    RANKED = "ranked"
    TIE = "tie"
    BOTH_BAD = "both bad"


@dataclass(frozen=True)
class DraftMark:
    """A mark from 1 to 5 for a draft. An empty draft id means the best draft that a model wrote."""

    draft_id: str
    criterion: str
    mark: int


@dataclass(frozen=True)
class GivenJudgement:
    """A judgement as it was sent. With a tie, or both bad, the order of the drafts means nothing, and there are no places.

    `seconds` is the time that the expert took, 0 if it is not known.
    """

    ranking: tuple[str, ...]
    marks: tuple[DraftMark, ...] = ()
    comment: str = ""
    outcome: JudgementOutcome = JudgementOutcome.RANKED
    places: tuple[int, ...] = ()
    seconds: float = 0.0

    @property
    def is_ranked(self) -> bool:
        """True unless none of the drafts is better."""
        return self.outcome is JudgementOutcome.RANKED


@dataclass(frozen=True)
class Judgement:
    """An expert's ranking, marks for drafts that a model wrote, and anonymised comment.

    `equal` are the drafts of a tie, or those that are both bad; then there is no ranking. `places` are those of the ranked drafts, which
    equally good ones share; empty if no two are. `expert_id` is opaque, and empty if it is not known who judged. `round` is the progress
    towards the next round with this judgement; None if the pipeline learns from no rankings. `edited` is True if the first draft is the
    second one as the expert edited it.
    """

    judgement_id: str
    specialist: str
    ranking: tuple[str, ...]
    marks: tuple[DraftMark, ...]
    comment: str
    create_time: datetime
    round: RoundProgress | None = None
    expert_id: str = ""
    outcome: JudgementOutcome = JudgementOutcome.RANKED
    equal: tuple[str, ...] = ()
    edited: bool = False
    places: tuple[int, ...] = ()

    @property
    def best_draft(self) -> str:
        """The best draft that a model wrote; empty if none is better."""
        return next(iter(self.ranking[int(self.edited) :]), "")

    @property
    def decided_pairs(self) -> Sequence[tuple[str, str]]:
        """Each two ranked drafts of which one is better, that one first."""
        return list_decided_pairs(self.ranking, self.places)

    @property
    def comparisons(self) -> Iterator[ComparedDrafts]:
        """Each two drafts that were compared."""
        return compare_drafts(self.ranking, self.places, self.equal)


class FeedbackVerdict(Enum):
    """What became of a draft."""

    ACCEPTED = "accepted"
    EDITED = "edited"
    REJECTED = "rejected"


@dataclass(frozen=True)
class Feedback:
    """Feedback of a caller on a draft: one for each draft and caller. `stars` are 1 to 5, 0 for none. Stored texts are anonymised."""

    feedback_id: str
    draft_id: str
    specialist: str
    adapter_digest: str
    verdict: FeedbackVerdict | None
    edited_text: str
    stars: int
    comment: str
    create_time: datetime


@dataclass(frozen=True)
class FeedbackTotals:
    """Counts of feedback by verdict, the number with stars, and the mean of those; 0 if there are none."""

    accepted: int = 0
    edited: int = 0
    rejected: int = 0
    rated: int = 0
    mean_stars: float = 0.0


@dataclass(frozen=True)
class ErasureRequest:
    """Documents to erase. The id is derived from the caller's request id, so that a repeated request means the same erasure."""

    erasure_id: str
    document_ids: Sequence[str]
    reason: str


@dataclass(frozen=True)
class ErasureReceipt:
    """A signed JSON body, its Ed25519 signature, and the 32 bytes of the public key."""

    body: str
    signature: bytes
    public_key: bytes


@dataclass(frozen=True)
class Erasure:
    """Documents that every service must forget. `awaits` names the services that must answer, `waiting_for` those that have not yet."""

    erasure_id: str
    document_ids: tuple[str, ...]
    reason: str
    create_time: datetime
    awaits: tuple[str, ...]
    waiting_for: tuple[str, ...] = ()
    lifted: tuple[str, ...] = ()
    receipt: ErasureReceipt | None = None


@dataclass(frozen=True)
class Learner:
    """An adapter that learned from a document, directly or through an adapter that did."""

    adapter: Adapter
    serving: bool
    tainted: bool
    retired: bool


@dataclass(frozen=True)
class ForgottenBy:
    """One service's answer about one document."""

    erasure_id: str
    document_id: str
    service: str
    counts: Mapping[str, int]
    datasets: tuple[str, ...] = ()


@dataclass(frozen=True)
class Taint:
    """An adapter trained on an erased document, or on what came from it. A retired adapter never serves again."""

    adapter_digest: str
    specialist: str
    erasure_id: str
    retired: bool
