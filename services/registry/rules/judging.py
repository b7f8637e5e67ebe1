"""Which two drafts an expert judges next: drafts of callers, some of them for several experts, in random order and on random sides."""

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from tailor.rounds import RoundProgress

# Texts of drafts expire after 30 days; a pair must stay readable until it is judged.
WINDOW = timedelta(days=29)
# How long an expert can take back the last decision.
UNDO_WINDOW = timedelta(minutes=15)
# The newest drafts of a specialist that are looked at.
MAX_DRAFTS = 5_000
# Of this share of the prompts, several experts judge the same drafts, so that their agreement is known. Of the others, one does.
OVERLAP_PERCENT = 25
OVERLAP_EXPERTS = 3
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
    """The decision of an expert about a prompt. No judgement means that the expert skipped it. `position` counts decisions."""

    expert_id: str
    specialist: str
    prompt_digest: str
    judgement_id: str
    create_time: datetime
    position: int = 0


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


def make_queue(expert_id: str, drafts: Iterable[StoredDraft], decisions: Collection[ExpertDecision]) -> ExpertQueue:
    """The expert's queue. The same input gives the same pair on the same sides."""
    done = {decision.prompt_digest for decision in decisions if decision.expert_id == expert_id}
    judged_by: dict[str, set[str]] = defaultdict(set)
    for decision in decisions:
        if decision.judgement_id:
            judged_by[decision.prompt_digest].add(decision.expert_id)
    pairs: dict[str, tuple[str, str]] = {}
    alone: dict[str, str] = {}
    for prompt, answers in _group(drafts).items():
        if prompt in done or len(judged_by[prompt]) >= count_experts(prompt):
            continue
        pair = _choose_pair(answers)
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


def count_experts(prompt_digest: str) -> int:
    """The experts who judge a prompt."""
    return OVERLAP_EXPERTS if _draw("overlap", prompt_digest) % 100 < OVERLAP_PERCENT else 1


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
