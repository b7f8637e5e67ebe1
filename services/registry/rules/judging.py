"""Which two drafts an expert judges next: drafts of callers, some of them for several experts, in random order and on random sides."""

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import combinations

from services.registry.domain import JudgingPolicy
from tailor.rounds import RoundProgress

# Texts of drafts expire after 30 days; a pair must stay readable until it is judged.
WINDOW = timedelta(days=29)
# How long an expert can take back the last decision.
UNDO_WINDOW = timedelta(minutes=15)
# The newest drafts of a specialist that are looked at.
MAX_DRAFTS = 5_000
MAX_EXPERTS = 9
# A prompt whose experts disagree goes to one more, up to this number beyond those that the specialist's policy plans.
MORE_EXPERTS = 2
# Experts agree on a prompt if at least this share of all pairs of them say the same: three of four do, two of three do not.
MIN_AGREEMENT = 0.5
# A prompt is not answered again once it has this many drafts and all are the same.
MAX_ALIKE = 4
# Drafts without a second one that a caller of the queue may prepare at a time.
MAX_INCOMPLETE = 3


@dataclass(frozen=True)
class StoredDraft:
    """A draft whose text is stored. `is_callers` is True if it was requested with an API key."""

    draft_id: str
    prompt_digest: str
    answer_digest: str
    is_callers: bool
    create_time: datetime


@dataclass(frozen=True)
class ExpertDecision:
    """The decision of an expert about a prompt. No judgement means that the expert skipped it. `position` counts decisions.

    `ranking` and `equal` are the drafts of the judgement, as in `Judgement`.
    """

    expert_id: str
    specialist: str
    prompt_digest: str
    judgement_id: str
    create_time: datetime
    position: int = 0
    ranking: tuple[str, ...] = ()
    equal: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExpertQueue:
    """The queue of one expert: the next pair, counts of prompts, and up to MAX_INCOMPLETE drafts that lack a second one.

    `last_decision` is the position of the decision that the expert can take back.
    """

    pair: tuple[str, str] | None
    judged: int
    waiting: int
    incomplete: int
    incomplete_drafts: tuple[str, ...]
    round: RoundProgress | None = None
    last_decision: int | None = None


def make_queue(
    expert_id: str,
    drafts: Iterable[StoredDraft],
    decisions: Collection[ExpertDecision],
    policy: JudgingPolicy | None = None,
) -> ExpertQueue:
    """The expert's queue. The same input gives the same pair on the same sides."""
    policy = policy or JudgingPolicy()
    done = {decision.prompt_digest for decision in decisions if decision.expert_id == expert_id}
    judged_by: dict[str, dict[str, ExpertDecision]] = defaultdict(dict)
    for decision in sorted(decisions, key=lambda decision: decision.position):
        if decision.judgement_id:
            judged_by[decision.prompt_digest][decision.expert_id] = decision
    pairs: dict[str, tuple[str, str]] = {}
    alone: dict[str, str] = {}
    for prompt, answers in _group(drafts).items():
        if prompt in done:
            continue
        pair, judged = _choose_pair(answers), judged_by[prompt].values()
        planned = count_experts(prompt, policy)
        if len(judged) >= planned and (pair is None or not needs_another_expert(find_votes(pair, judged), planned)):
            continue
        if pair is not None:
            pairs[prompt] = pair
        elif any(draft.is_callers for draft in answers) and len(answers) < MAX_ALIKE:
            alone[prompt] = answers[0].draft_id
    waiting, incomplete = _shuffle(expert_id, pairs), _shuffle(expert_id, alone)
    return ExpertQueue(
        pair=_order_sides(expert_id, waiting[0], pairs[waiting[0]]) if waiting else None,
        judged=sum(expert_id in experts for experts in judged_by.values()),
        waiting=len(waiting),
        incomplete=len(incomplete),
        incomplete_drafts=tuple(alone[prompt] for prompt in incomplete[:MAX_INCOMPLETE]),
    )


def count_experts(prompt_digest: str, policy: JudgingPolicy) -> int:
    """The experts who judge a prompt, if they agree."""
    return policy.experts if _draw("overlap", prompt_digest) % 100 < policy.overlap_share * 100 else 1


def find_votes(pair: tuple[str, str], decisions: Iterable[ExpertDecision]) -> list[str]:
    """The better draft of a pair, or an empty string for none, by each decision about these two drafts."""
    votes = []
    for decision in decisions:
        ranked = [draft_id for draft_id in decision.ranking if draft_id in pair]
        if len(ranked) == len(pair):
            votes.append(ranked[0])
        elif set(pair) <= set(decision.equal):
            votes.append("")
    return votes


def needs_another_expert(votes: Sequence[str], planned: int) -> bool:
    """True if experts disagree about a pair of drafts, and fewer than MORE_EXPERTS beyond those `planned` have judged it."""
    if not 2 <= len(votes) < planned + MORE_EXPERTS:
        return False
    pairs = list(combinations(votes, 2))
    return sum(first == second for first, second in pairs) < MIN_AGREEMENT * len(pairs)


def find_judging_violations(policy: JudgingPolicy) -> dict[str, str]:
    """Violations by field; empty for a valid policy."""
    violations = {}
    if not 0 <= policy.overlap_share <= 1:
        violations["judging.overlap_share"] = "must be from 0 to 1"
    if not 2 <= policy.experts <= MAX_EXPERTS:
        violations["judging.experts"] = f"must be from 2 to {MAX_EXPERTS}"
    return violations


def _group(drafts: Iterable[StoredDraft]) -> Mapping[str, Sequence[StoredDraft]]:
    """The drafts of each prompt, oldest first."""
    groups: dict[str, list[StoredDraft]] = defaultdict(list)
    for draft in sorted(drafts, key=lambda draft: (draft.create_time, draft.draft_id)):
        groups[draft.prompt_digest].append(draft)
    return groups


def _choose_pair(answers: Sequence[StoredDraft]) -> tuple[str, str] | None:
    """A caller's oldest draft and the oldest other answer, so that all experts compare the same two."""
    first = next((draft for draft in answers if draft.is_callers), None)
    if first is None:
        return None
    other = next((draft for draft in answers if draft.answer_digest != first.answer_digest), None)
    return None if other is None else (first.draft_id, other.draft_id)


def _shuffle(expert_id: str, prompts: Iterable[str]) -> list[str]:
    return sorted(prompts, key=lambda prompt: _draw("order", expert_id, prompt))


def _order_sides(expert_id: str, prompt: str, pair: tuple[str, str]) -> tuple[str, str]:
    first, second = pair
    return (second, first) if _draw("side", expert_id, prompt) % 2 else (first, second)


def _draw(*names: str) -> int:
    """A fixed number that looks random."""
    return int.from_bytes(hashlib.sha256("\n".join(names).encode()).digest()[:8], "big")
