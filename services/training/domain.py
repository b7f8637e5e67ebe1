"""Training's values: runs and what they are made of. Imports no library.

A run has stages, and at most one worker at a time, which holds a lease with an epoch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

from services.training.plans import Plan, RunReport
from tailor.errors import Reason
from tailor.storage.ref import Ref

RETRIABLE_EXIT = 75  # EX_TEMPFAIL: the worker saved its state, or lost a dependency
SFT, PREFERENCE = "sft", "preference"
# A held-out reward model is a reward adapter whose scores are only reported.
POLICY, REWARD, HELD_OUT_REWARD = "policy", "reward", "held_out_reward"
DATASET_ERASED = Reason.DATASET_ERASED  # why a run on erased documents ended


class RunState(Enum):
    """Where a run is in its life."""

    QUEUED = "queued"
    AWAITING_APPROVAL = "awaiting_approval"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """True if the run needs no more work."""
        return self in {RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED}


@dataclass(frozen=True)
class RunKey:
    """The identity of a run: two requests with the same key mean the same run. Parent and preference dataset are the requested ones."""

    specialist: str
    dataset_digest: str
    base: str
    recipe_digest: str
    parent_digest: str = ""
    preference_dataset_digest: str = ""


@dataclass(frozen=True)
class Progress:
    """One progress report: the figures that rules depend on, and the complete `RunProgressed` message, serialised.

    `loss` is in nats per token.
    """

    phase: str
    step: int
    total_steps: int
    loss: float
    stage: int = 0
    message: bytes = b""


@dataclass(frozen=True)
class LogLine:
    """One line of a worker's log. It contains no document text."""

    create_time: datetime
    level: str
    message: str
    epoch: int


@dataclass(frozen=True)
class TrainedAdapter:
    """An adapter that a worker stored and verified: the figures that rules depend on.

    As a worker reports it, `message` is its `AdapterTrained` message, serialised. As the result of a stage it has the stage's `kind` and
    the worker's `epoch`; epoch 0 means that an earlier run trained it.
    """

    digest: str
    manifest: Ref
    steps: int = 0
    rows: int = 0
    tokens: int = 0
    memory_bytes: int = 0
    rows_skipped: int = 0
    stopped_because: str = ""
    message: bytes = b""
    kind: str = ""
    epoch: int = 0


@dataclass(frozen=True)
class Failure:
    """Why a run ended without an adapter, or why it waits."""

    reason: str
    message: str


@dataclass(frozen=True)
class Stage:
    """One method of a run.

    `learns_from` is the kind of its dataset; `dataset` is None while the stage waits for one. `parent`, `reward` and `held_out_reward`
    are the manifests of the adapter to start from and of those that score answers; None if there is none, or none yet. A stage with
    `makes_held_out_reward` produces a held-out reward model. A stage with `all_weights` produces no adapter that a later stage can build
    on.
    """

    recipe: str
    method: str
    recipe_json: str
    learns_from: str
    dataset: Ref | None = None
    parent: Ref | None = None
    all_weights: bool = False
    wants_reward: bool = False
    reward: Ref | None = None
    held_out_reward: Ref | None = None
    makes_held_out_reward: bool = False
    result: TrainedAdapter | None = None

    @property
    def kind(self) -> str:
        """The kind of adapter that the stage produces."""
        if self.method != "reward":
            return POLICY
        return HELD_OUT_REWARD if self.makes_held_out_reward else REWARD


@dataclass(frozen=True)
class Run:
    """One execution of a recipe, or of a specialist's pipeline.

    `is_pipeline` runs follow from datasets; a new dataset supersedes them. `round` is the number of the specialist's preference datasets
    so far if the run learns from the newest one, else 0. `base_adapter` is the adapter that was merged into its base. `failures` counts the
    workers lost since the run last reached a new furthest step. `worked_seconds` is the time of workers that have ended; `heard_since` and
    `heard_last` are the first and last reports of the current one. Before its last plan the run had worked for `seconds_before_plan`, and
    for `seconds_before_month` before `month`, the beginning of the month in which it worked last. `stopping` is why the current worker was
    asked to save and end. `base_digest` is empty until the run is planned. `needs_plan` is set again when the run gets another dataset.
    `approve_time` is None unless somebody approved the run; `approved_by` is then a key or person, or empty for the console's operator.
    """

    run_id: str
    key: RunKey
    recipe: str
    stages: tuple[Stage, ...]
    state: RunState
    create_time: datetime
    parent: Ref | None = None
    priority: int = 0
    stage: int = 0
    is_pipeline: bool = False
    round: int = 0
    reason: str = ""
    message: str = ""
    epoch: int = 0
    failures: int = 0
    lease_expires: datetime | None = None
    not_before: datetime | None = None
    progress: Progress | None = None
    best_step: int = 0
    first_loss: float = 0.0
    last_event: datetime | None = None
    adapter_digest: str = ""
    start_time: datetime | None = None
    end_time: datetime | None = None
    base_digest: str = ""
    base_adapter: str = ""
    needs_plan: bool = True
    worked_seconds: float = 0.0
    seconds_before_plan: float = 0.0
    seconds_before_month: float = 0.0
    month: datetime | None = None
    heard_since: datetime | None = None
    heard_last: datetime | None = None
    stopping: Failure | None = None
    plan: Plan | None = None
    report: RunReport | None = None
    approve_time: datetime | None = None
    approved_by: str = ""

    @property
    def current(self) -> Stage:
        """The stage that runs or waits now; the last stage once the run has ended."""
        return self.stages[self.stage]

    @property
    def worked_stages(self) -> tuple[Stage, ...]:
        """Its stages without those whose adapter an earlier run had trained."""
        return tuple(stage for stage in self.stages if stage.result is None or stage.result.epoch)

    @property
    def continues(self) -> bool:
        """True if another stage starts from the current one's adapter as soon as that is complete."""
        return self.stage + 1 < len(self.stages) and self.stages[self.stage + 1].dataset is not None

    @property
    def is_finishing(self) -> bool:
        """True if the worker has trained the current stage, and saves and proves its result."""
        progress = self.progress
        if progress is None or progress.stage != self.stage or progress.phase == "loading":
            return False
        return progress.phase != "training" or progress.step >= progress.total_steps

    @property
    def is_waiting(self) -> bool:
        """True if no worker was started yet."""
        return self.state in {RunState.QUEUED, RunState.AWAITING_APPROVAL} and self.epoch == 0

    def dataset_of(self, kind: str) -> str:
        """Digest of the dataset of a kind that the current stage or an earlier one learns from; empty if there is none."""
        datasets = (stage.dataset for stage in self.stages[: self.stage + 1] if stage.learns_from == kind)
        return next((dataset.sha256 for dataset in datasets if dataset), "")

    @property
    def datasets(self) -> tuple[str, ...]:
        """Distinct digests of the datasets that its stages learn from."""
        return tuple(dict.fromkeys(stage.dataset.sha256 for stage in self.stages if stage.dataset))

    @property
    def preferences(self) -> str:
        """Digest of the preference dataset; empty if there is none, or none yet."""
        datasets = (stage.dataset for stage in self.stages if stage.learns_from == PREFERENCE and stage.dataset)
        return next((dataset.sha256 for dataset in datasets), "")

    @property
    def can_resume(self) -> bool:
        """True if the run ended without its adapter, and not because a document was erased."""
        return self.state in {RunState.FAILED, RunState.CANCELLED} and self.reason != DATASET_ERASED

    @property
    def lacks_rankings(self) -> bool:
        """True if a stage waits for a preference dataset."""
        return any(stage.dataset is None for stage in self.stages)

    def finished_stage_under(self, epoch: int) -> bool:
        """True if the worker of this epoch completed a stage."""
        return any(stage.result is not None and stage.result.epoch == epoch for stage in self.stages)

    def due(self, now: datetime) -> bool:
        """True if the run is queued and its waiting time is over."""
        return self.state is RunState.QUEUED and (self.not_before is None or self.not_before <= now)

    def lease_lost(self, now: datetime) -> bool:
        """True if the run's worker has not reported within its lease."""
        return self.state is RunState.RUNNING and (self.lease_expires is None or self.lease_expires <= now)


@dataclass(frozen=True)
class ChatCapabilities:
    """How a base chats.

    `ends` are the tokens at which an answer ends, `end` is the text that ends a taught one. `keeps_turns` means that the template renders
    an earlier answer as the base wrote it, so that it is learned too. `own_template` is False for a template that trl ships for training.
    A base with `thought_end` can think before it answers: the answer begins behind it, and the thought behind `thought_start`.
    `quiet` says what keeps it from thinking: a variable of its template, an empty thought in the prompt, or nothing.
    """

    ends: tuple[int, ...] = ()
    end: str = ""
    keeps_turns: bool = False
    has_system: bool = False
    own_template: bool = True
    thought_start: str = ""
    thought_end: str = ""
    quiet: str = ""


@dataclass(frozen=True)
class Capabilities:
    """How a base is trained as itself, and what of it is served.

    `attention` computes rows as the model's own attention does, and `plain_attention` also answers with a cache, both in transformers'
    terms. `packed` means that rows of one micro-batch do not see each other; without it each row is computed by itself.

    `targets` are ends of the paths of linear layers that adapters change, and that the engine serves up to `max_rank`; `left_out` are
    other layers, such as routers and experts. If the engine serves no adapters of the base, `not_served_because` says why in a sentence,
    and `targets` are all layers that can be trained, since DoRA and all weights are served merged.
    """

    attention: str
    plain_attention: str
    packed: bool
    targets: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    max_rank: int = 0
    not_served_because: str = ""
    chat: ChatCapabilities = ChatCapabilities()


@dataclass(frozen=True)
class Base:
    """A base in the models bucket. `digest` is the SHA-256 of its manifest, `adapter_digest` names the adapter that was merged into it.

    `left_out_parameters` of its source read no text. `quantisation` is the method by which its source was quantised. `source` is exact.
    """

    name: str
    digest: str
    licence: str
    parameters: int
    size_bytes: int
    manifest: Ref
    adapter_digest: str = ""
    capabilities: Capabilities | None = None
    left_out_parameters: int = 0
    quantisation: str = ""
    source: str = ""


@dataclass(frozen=True)
class NewestDataset:
    """A specialist's newest dataset of a kind. `number` counts its datasets of that kind from 1."""

    specialist: str
    kind: str
    manifest: Ref
    create_time: datetime
    number: int = 1

    @property
    def digest(self) -> str:
        """The dataset's name."""
        return self.manifest.sha256


@dataclass(frozen=True)
class Dataset:
    """A dataset of kind `sft` or `preference`, with the teacher tokens and judgements that went into it."""

    manifest: Ref
    kind: str
    specialist: str
    teacher_tokens: int = 0
    judgements: int = 0


@dataclass(frozen=True)
class Adapter:
    """An adapter in the models bucket, as its manifest describes it.

    `weights` is `adapter`, or `full` if all weights were trained. `shape` is the `[adapter]` table of its recipe.
    """

    manifest: Ref
    kind: str
    weights: str
    specialist: str
    base: str
    shape: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class StartedWorker:
    """A worker that was started and may still be alive. `stop_time` is when it was first found to be unwanted."""

    run_id: str
    epoch: int
    stop_time: datetime | None = None


@dataclass(frozen=True)
class Job:
    """Input of a launcher: start a worker for the run's current stage."""

    run: Run
    base_digest: str

    @property
    def stage(self) -> Stage:
        """The stage to work on."""
        return self.run.current

    @property
    def name(self) -> str:
        """Unique per start: run id and epoch."""
        return f"{self.run.run_id}-{self.run.epoch}"
