"""Pairs from what people thought of drafts: rankings, and the deliverables that they made out of them."""

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from services.synthetic.domain import (
    Assignment,
    Document,
    Judgement,
    PairCounts,
    Specialist,
    Spoken,
    estimate_tokens,
    fingerprint,
)
from services.synthetic.selection import is_held_out

RANKING = "ranking"
DELIVERABLE = "deliverable"


@dataclass(frozen=True)
class PairLimits:
    """How pairs are chosen. Tokens are estimated, of the prompt with the longer answer."""

    max_tokens: int = 1024
    held_out_percent: int = 12
    min_train_rows: int = 8
    min_held_out_rows: int = 1


@dataclass(frozen=True)
class PairRow:
    """One preference row: the chat that was answered, the better answer and the worse one."""

    origin: str
    prompt_digest: str
    messages: tuple[tuple[str, str], ...]
    chosen: str
    rejected: str
    document_ids: tuple[str, ...] = ()
    judgement_ids: tuple[str, ...] = ()
    made_by: str = "human"

    @property
    def row_id(self) -> str:
        """An id that the same row always has, though more judgements say the same."""
        return f"row_{fingerprint(self.origin, *self.document_ids, self.messages, self.chosen, self.rejected)[:32]}"

    @property
    def tokens(self) -> int:
        """Estimated tokens of the prompt with the longer answer."""
        prompt = "".join(content for _, content in self.messages)
        return estimate_tokens(prompt + max(self.chosen, self.rejected, key=len))


@dataclass(frozen=True)
class Evidence:
    """What pairs are made of: judgements, deliverables with their texts, drafts with their kept texts by id, and the documents' sides."""

    judgements: Sequence[Judgement]
    deliverables: Sequence[tuple[Document, str]]
    spoken: Mapping[str, Spoken]
    assignments: Mapping[str, Assignment]


@dataclass(frozen=True)
class Pairs:
    """Rows of both splits, by id, and what was counted."""

    train: tuple[PairRow, ...]
    held_out: tuple[PairRow, ...]
    counts: PairCounts


@dataclass
class _Votes:
    """What judgements said of two answers to one prompt."""

    messages: tuple[tuple[str, str], ...]
    for_answer: Counter[str]
    judgement_ids: list[str]


def make_pairs(specialist: Specialist, evidence: Evidence, limits: PairLimits) -> Pairs:
    """The pairs of rankings and of deliverables, split by prompt: no prompt is on both sides, and each stays on its own."""
    ranked = [one for one in evidence.judgements if len(one.ranking) > 1]
    counts = PairCounts(judgements=len(ranked), deliverables=len(evidence.deliverables))
    rows, counts = _from_rankings(specialist, ranked, evidence.spoken, counts)
    finished, counts = _from_deliverables(specialist, evidence.deliverables, evidence.spoken, counts)
    rows += finished
    fitting = [row for row in rows if row.tokens <= limits.max_tokens]
    counts = replace(counts, pairs=len(rows), too_long=len(rows) - len(fitting))
    sides: dict[bool, list[PairRow]] = {False: [], True: []}
    across = 0
    for row in sorted(fitting, key=lambda row: row.row_id):
        side = is_held_out(row.prompt_digest, limits.held_out_percent)
        if all(_side(key, evidence.assignments, limits) == side for key in row.document_ids):
            sides[side].append(row)
        else:
            across += 1
    return Pairs(tuple(sides[False]), tuple(sides[True]), replace(counts, across_split=across))


def _from_rankings(
    specialist: Specialist, judgements: Iterable[Judgement], spoken: Mapping[str, Spoken], counts: PairCounts
) -> tuple[list[PairRow], PairCounts]:
    """Two answers make one row, however often they were judged: the majority's order holds, and where there is none the pair is dropped."""
    votes: dict[tuple[str, str, str], _Votes] = {}
    unmatched = identical = 0
    for judgement in judgements:
        made = []
        for better_id, worse_id in itertools.combinations(judgement.ranking, 2):
            better, worse = spoken.get(better_id), spoken.get(worse_id)
            if better is None or worse is None or better.prompt_digest != worse.prompt_digest:
                unmatched += 1
            elif better.answer.strip() == worse.answer.strip():
                identical += 1
            else:
                made.append((better, worse))
        for better, worse in _capped(judgement, made, specialist.filters.max_pairs_per_judgement):
            first, second = sorted((better.answer, worse.answer))
            found = votes.setdefault(
                (better.prompt_digest, first, second), _Votes(_chat(specialist, better), Counter(), [])
            )
            found.for_answer[better.answer] += 1
            found.judgement_ids.append(judgement.judgement_id)
    rows, tied = [], 0
    for (prompt_digest, first, second), found in votes.items():
        lead = found.for_answer[first] - found.for_answer[second]
        if lead == 0:
            tied += 1
            continue
        chosen, rejected = (first, second) if lead > 0 else (second, first)
        judged = tuple(sorted(set(found.judgement_ids)))
        rows.append(PairRow(RANKING, prompt_digest, found.messages, chosen, rejected, judgement_ids=judged))
    return rows, replace(counts, unmatched=unmatched, identical=identical, tied=tied)


def _from_deliverables(
    specialist: Specialist,
    deliverables: Sequence[tuple[Document, str]],
    spoken: Mapping[str, Spoken],
    counts: PairCounts,
) -> tuple[list[PairRow], PairCounts]:
    """What a person made out of a draft is better than the draft."""
    rows, identical = [], 0
    for document, text in deliverables:
        draft = spoken.get(document.draft_id)
        if draft is None:
            continue
        if draft.answer.strip() == text.strip():
            identical += 1
            continue
        row = PairRow(DELIVERABLE, draft.prompt_digest, _chat(specialist, draft), text, draft.answer)
        rows.append(replace(row, document_ids=(document.document_id,)))
    return rows, replace(counts, identical=counts.identical + identical)


def _capped(judgement: Judgement, pairs: list[tuple[Spoken, Spoken]], most: int) -> list[tuple[Spoken, Spoken]]:
    """At most so many pairs of one judgement, chosen by a hash; all of them for 0."""
    if not most:
        return pairs
    return sorted(pairs, key=lambda pair: fingerprint("pair", judgement.judgement_id, *(one.draft_id for one in pair)))[
        :most
    ]


def _chat(specialist: Specialist, draft: Spoken) -> tuple[tuple[str, str], ...]:
    """The chat as the specialist would get it: with its system prompt, unless the caller gave one."""
    own = not specialist.system_prompt or draft.messages[0][0] == "system"
    return draft.messages if own else (("system", specialist.system_prompt), *draft.messages)


def _side(document_id: str, assignments: Mapping[str, Assignment], limits: PairLimits) -> bool:
    """True where a document is held out; before it has a cluster, where one of its own would be."""
    known = assignments.get(document_id)
    return known.held_out if known is not None else is_held_out(document_id, limits.held_out_percent)
