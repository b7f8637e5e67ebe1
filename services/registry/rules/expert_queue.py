"""Which drafts an expert judges next: of callers' prompts or drawn ones, some for several experts, in random order and on random sides."""

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import combinations

from services.registry.domain import JudgingPolicy
from services.registry.rules.measuring import NAME, NAME_RULE
from tailor.rankings import compare_drafts
from tailor.rounds import RoundProgress
from tailor.values import JudgingCriterion

# Texts of drafts expire after 30 days; they must stay readable until they are judged.
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
# Experts rank this many drafts of a prompt at most.
MAX_DRAFTS_OF_PROMPT = 4
# A prompt whose drafts are too often the same is answered this often beyond the number that experts rank.
SPARE_ANSWERS = 2
# Prompts with too few drafts that a caller of the queue may have answered at a time.
MAX_INCOMPLETE = 3
# If fewer prompts wait for an expert, with enough drafts or without, another one is drawn.
MIN_WAITING = 3
# Drawn prompts of a specialist that may wait without anybody's decision.
MAX_DRAWN_WAITING = 10
MAX_CRITERIA = 5
MAX_QUESTION = 200
# The name of the agreement on rankings, next to the names of criteria.
RANKING = "ranking"


@dataclass(frozen=True)
class StoredDraft:
    """A draft whose text is stored. `is_callers` is True if it was requested with an API key, `is_drawn` if its prompt was drawn."""

    draft_id: str
    prompt_digest: str
    answer_digest: str
    is_callers: bool
    create_time: datetime
    is_drawn: bool = False


@dataclass(frozen=True)
class ExpertDecision:
    """The decision of an expert about a prompt. No judgement means that the expert skipped it. `position` counts decisions.

    `ranking`, `places` and `equal` are those of the judgement, as in `Judgement`.
    """

    expert_id: str
    specialist: str
    prompt_digest: str
    judgement_id: str
    create_time: datetime
    position: int = 0
    ranking: tuple[str, ...] = ()
    equal: tuple[str, ...] = ()
    places: tuple[int, ...] = ()


# Of each two drafts, by their ids in order: the better one, or an empty string for none.
Votes = Mapping[tuple[str, str], str]


@dataclass(frozen=True)
class ExpertQueue:
    """The queue of one expert: the next drafts to compare, and counts of prompts.

    `incomplete_drafts` are the newest drafts of up to MAX_INCOMPLETE prompts that have too few. `last_decision` is the position of the
    decision that the expert can take back. `is_drawn` says that no caller sent the prompt of `drafts`, and `draws_prompt` that another
    prompt should be drawn.
    """

    drafts: tuple[str, ...]
    judged: int
    waiting: int
    incomplete: int
    incomplete_drafts: tuple[str, ...]
    round: RoundProgress | None = None
    last_decision: int | None = None
    criteria: tuple[JudgingCriterion, ...] = ()
    is_drawn: bool = False
    draws_prompt: bool = False

    @property
    def needs_prompts(self) -> bool:
        """True if too few prompts wait for the expert."""
        return self.waiting + self.incomplete < MIN_WAITING


def make_queue(
    expert_id: str,
    drafts: Iterable[StoredDraft],
    decisions: Collection[ExpertDecision],
    policy: JudgingPolicy | None = None,
) -> ExpertQueue:
    """The expert's queue, drawn prompts last. The same input gives the same drafts on the same sides."""
    policy = policy or JudgingPolicy()
    done = {decision.prompt_digest for decision in decisions if decision.expert_id == expert_id}
    judged_by: dict[str, dict[str, ExpertDecision]] = defaultdict(dict)
    for decision in sorted(decisions, key=lambda decision: decision.position):
        if decision.judgement_id:
            judged_by[decision.prompt_digest][decision.expert_id] = decision
    complete: dict[str, tuple[str, ...]] = {}
    short: dict[str, str] = {}
    groups = _group(drafts)
    for prompt, answers in groups.items():
        chosen, judged = _choose_drafts(answers, policy.drafts), judged_by[prompt].values()
        if prompt in done or not chosen:
            continue
        wanted = count_experts(prompt, policy)
        if len(judged) >= wanted and not needs_another_expert(list_votes(chosen, judged), wanted):
            continue
        is_answered = len(answers) >= policy.drafts + SPARE_ANSWERS
        if len(chosen) == policy.drafts or (is_answered and len(chosen) > 1):
            complete[prompt] = chosen
        elif not is_answered:
            short[prompt] = answers[-1].draft_id
    drawn = {prompt for prompt, answers in groups.items() if _is_drawn(answers)}
    waiting, incomplete = _shuffle(expert_id, complete, drawn), _shuffle(expert_id, short, drawn)
    return ExpertQueue(
        drafts=_order_sides(expert_id, waiting[0], complete[waiting[0]]) if waiting else (),
        judged=sum(expert_id in experts for experts in judged_by.values()),
        waiting=len(waiting),
        incomplete=len(incomplete),
        incomplete_drafts=tuple(short[prompt] for prompt in incomplete[:MAX_INCOMPLETE]),
        criteria=policy.effective_criteria,
        is_drawn=bool(waiting) and waiting[0] in drawn,
    )


def count_drawn(drafts: Iterable[StoredDraft], decisions: Iterable[ExpertDecision], policy: JudgingPolicy) -> int:
    """The drawn prompts that wait, and about which no expert has decided. Those whose answers are all alike do not wait."""
    decided = {decision.prompt_digest for decision in decisions}
    groups = _group(draft for draft in drafts if draft.prompt_digest not in decided)
    undecided = [draft for answers in groups.values() if _is_drawn(answers) for draft in answers]
    queue = make_queue("", undecided, (), policy)
    return queue.waiting + queue.incomplete


def count_experts(prompt_digest: str, policy: JudgingPolicy) -> int:
    """The experts who judge a prompt, if they agree."""
    return policy.experts if _draw("overlap", prompt_digest) % 100 < policy.overlap_share * 100 else 1


def list_votes(drafts: Collection[str], decisions: Iterable[ExpertDecision]) -> list[Votes]:
    """The votes of each decision about these drafts, without decisions that compare no two of them."""
    votes = [
        {
            (min(pair.first, pair.second), max(pair.first, pair.second)): pair.first if pair.is_decided else ""
            for pair in compare_drafts(decision.ranking, decision.places, decision.equal)
            if pair.first in drafts and pair.second in drafts
        }
        for decision in decisions
    ]
    return [vote for vote in votes if vote]


def needs_another_expert(votes: Sequence[Votes], wanted: int) -> bool:
    """True if experts disagree about drafts, and fewer than MORE_EXPERTS beyond those `planned` have judged them."""
    if not 2 <= len(votes) < wanted + MORE_EXPERTS:
        return False
    compared = [
        first[pair] == second[pair] for first, second in combinations(votes, 2) for pair in first.keys() & second.keys()
    ]
    return sum(compared) < MIN_AGREEMENT * len(compared)


def find_judging_violations(policy: JudgingPolicy) -> dict[str, str]:
    """Violations by field; empty for a valid policy."""
    violations = {}
    if not 0 <= policy.overlap_share <= 1:
        violations["judging.overlap_share"] = "must be from 0 to 1"
    if not 2 <= policy.experts <= MAX_EXPERTS:
        violations["judging.experts"] = f"must be from 2 to {MAX_EXPERTS}"
    if not 2 <= policy.drafts <= MAX_DRAFTS_OF_PROMPT:
        violations["judging.drafts"] = f"must be from 2 to {MAX_DRAFTS_OF_PROMPT}"
    return violations | {f"judging.criteria{field}": problem for field, problem in _check_criteria(policy.criteria)}


def _check_criteria(criteria: Sequence[JudgingCriterion]) -> Iterator[tuple[str, str]]:
    if len(criteria) > MAX_CRITERIA:
        yield "", f"must have at most {MAX_CRITERIA} criteria, so that a judgement stays short"
    names = [criterion.name for criterion in criteria]
    for index, criterion in enumerate(criteria):
        if not NAME.fullmatch(criterion.name) or criterion.name == RANKING:
            yield f"[{index}].name", f"{NAME_RULE}, and must not be '{RANKING}'"
        if criterion.name in names[:index]:
            yield f"[{index}].name", "is listed twice"
        for field in ("question", "low", "high"):
            text = getattr(criterion, field)
            if not text.strip() or len(text) > MAX_QUESTION:
                yield f"[{index}].{field}", f"must have 1 to {MAX_QUESTION} characters"


def _group(drafts: Iterable[StoredDraft]) -> Mapping[str, Sequence[StoredDraft]]:
    """The drafts of each prompt, oldest first."""
    groups: dict[str, list[StoredDraft]] = defaultdict(list)
    for draft in sorted(drafts, key=lambda draft: (draft.create_time, draft.draft_id)):
        groups[draft.prompt_digest].append(draft)
    return groups


def _is_drawn(answers: Sequence[StoredDraft]) -> bool:
    return any(draft.is_drawn for draft in answers) and not any(draft.is_callers for draft in answers)


def _choose_drafts(answers: Sequence[StoredDraft], number: int) -> tuple[str, ...]:
    """A caller's oldest draft, or else that of a drawn prompt, and the oldest other answers, so that all experts compare the same.

    None without such a draft.
    """
    first = next((draft for draft in answers if draft.is_callers), None)
    first = first or next((draft for draft in answers if draft.is_drawn), None)
    if first is None:
        return ()
    chosen = {first.answer_digest: first.draft_id}
    for draft in answers:
        chosen.setdefault(draft.answer_digest, draft.draft_id)
    return tuple(chosen.values())[:number]


def _shuffle(expert_id: str, prompts: Iterable[str], drawn: Collection[str]) -> list[str]:
    """In random order, drawn prompts last."""
    return sorted(prompts, key=lambda prompt: (prompt in drawn, _draw("order", expert_id, prompt)))


def _order_sides(expert_id: str, prompt: str, drafts: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(drafts, key=lambda draft_id: _draw("side", expert_id, prompt, draft_id)))


def _draw(*names: str) -> int:
    """A fixed number that looks random."""
    return int.from_bytes(hashlib.sha256("\n".join(names).encode()).digest()[:8], "big")
