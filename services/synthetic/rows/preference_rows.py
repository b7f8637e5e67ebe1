"""Preference rows from rankings of drafts, from deliverables that people made from drafts, and from revisions that comments asked for."""

import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from services.synthetic.domain import (
    CRITIQUE,
    Conversation,
    Document,
    Judgement,
    PairCounts,
    PairRow,
    Revision,
    Specialist,
    draft_text_id,
    fingerprint,
    is_text_id,
)
from services.synthetic.ports import TokenCounter
from tailor.rankings import compare_drafts
from tailor.rounds import is_held_out

RANKING = "ranking"
DELIVERABLE = "deliverable"


@dataclass(frozen=True)
class PairLimits:
    """How pairs are chosen. `max_tokens` limits the tokens of a prompt with its longer answer, by the base's tokenizer."""

    max_tokens: int = 1024
    held_out_percent: int = 12
    min_train_rows: int = 8
    min_held_out_rows: int = 1


@dataclass(frozen=True)
class Evidence:
    """The input of pairs: judgements, deliverables with their texts, drafts with their texts by id, the documents' sides, and revisions."""

    judgements: Sequence[Judgement]
    deliverables: Sequence[tuple[Document, str]]
    conversations: Mapping[str, Conversation]
    sides: Mapping[str, bool]
    revisions: Sequence[Revision] = ()


@dataclass(frozen=True)
class Pairs:
    """Rows of both splits, sorted by id, and their counts."""

    train: tuple[PairRow, ...]
    held_out: tuple[PairRow, ...]
    counts: PairCounts


@dataclass
class _Votes:
    """Judgements of two answers to one prompt."""

    messages: tuple[tuple[str, str], ...]
    for_answer: Counter[str]
    judgement_ids: list[str]
    text_ids: set[str] = field(default_factory=set)
    drawn_from: set[str] = field(default_factory=set)


def make_pairs(specialist: Specialist, evidence: Evidence, limits: PairLimits, counter: TokenCounter) -> Pairs:
    """Make the pairs of rankings, deliverables and revisions, split by prompt: a prompt is always on the same side of the split.

    Revisions are never held out, because no expert compared them: held-out pairs say what experts prefer.
    """
    rankings = [judgement for judgement in evidence.judgements if len(judgement.ranking) > 1]
    counts = PairCounts(judgements=len(rankings), deliverables=len(evidence.deliverables))
    rows, counts = _from_rankings(specialist, rankings, evidence.conversations, counts)
    deliverable_rows, counts = _from_deliverables(specialist, evidence.deliverables, evidence.conversations, counts)
    revised_rows, counts = _from_revisions(specialist, evidence.revisions, evidence.conversations, counts)
    rows += deliverable_rows + revised_rows
    rows = _count_tokens(rows, counter)
    short = [row for row in rows if row.tokens <= limits.max_tokens]
    fitting = [row for row in short if all(map(counter.can_encode, row.chats))]
    counts = replace(counts, pairs=len(rows), too_long=len(rows) - len(short), unfit=len(short) - len(fitting))
    sides: dict[bool, list[PairRow]] = {False: [], True: []}
    across = 0
    for row in sorted(fitting, key=lambda row: row.row_id):
        side = is_held_out(row.prompt_digest, limits.held_out_percent)
        is_free = not (side and row.task == CRITIQUE)
        # Prompts are drawn from train rows, and their pairs are split like all others.
        documents = [key for key in row.document_ids if not is_text_id(key) and key not in row.drawn_from]
        if is_free and all(_side(key, evidence.sides, limits) == side for key in documents):
            sides[side].append(row)
        else:
            across += 1
    return Pairs(tuple(sides[False]), tuple(sides[True]), replace(counts, across_split=across))


def _from_rankings(
    specialist: Specialist,
    judgements: Iterable[Judgement],
    conversations: Mapping[str, Conversation],
    counts: PairCounts,
) -> tuple[list[PairRow], PairCounts]:
    """Make one row of two answers, however often they were judged. The majority decides their order; a tie makes no row."""
    votes: dict[tuple[str, str, str], _Votes] = {}
    undecided: set[tuple[str, str, str]] = set()
    unmatched = identical = 0
    for judgement in judgements:
        pairs = []
        for compared in compare_drafts(judgement.ranking, judgement.places):
            better, worse = conversations.get(compared.first), conversations.get(compared.second)
            if better is None or worse is None or better.prompt_digest != worse.prompt_digest:
                unmatched += 1
            elif better.edit_of not in ("", worse.draft_id):
                # The expert compared the edited text with its own draft; the other pairs would teach it again.
                continue
            elif better.answer.strip() == worse.answer.strip():
                identical += 1
            elif not compared.is_decided:
                undecided.add(_key(better, worse))
            else:
                pairs.append((better, worse))
        for better, worse in _limit_pairs(judgement, pairs, specialist.filters.max_pairs_per_judgement):
            pair_votes = votes.setdefault(_key(better, worse), _Votes(_chat(specialist, better), Counter(), []))
            pair_votes.for_answer[better.answer] += 1
            pair_votes.judgement_ids.append(judgement.judgement_id)
            pair_votes.text_ids |= {draft_text_id(draft.draft_id) for draft in (better, worse) if draft.edit_of}
            pair_votes.drawn_from |= {*better.drawn_from, *worse.drawn_from}
    rows, tied = [], len(undecided - votes.keys())
    for (prompt_digest, first, second), pair_votes in votes.items():
        lead = pair_votes.for_answer[first] - pair_votes.for_answer[second]
        if lead == 0:
            tied += 1
            continue
        chosen, rejected = (first, second) if lead > 0 else (second, first)
        judgement_ids = tuple(sorted(set(pair_votes.judgement_ids)))
        row = PairRow(RANKING, prompt_digest, pair_votes.messages, chosen, rejected, judgement_ids=judgement_ids)
        rows.append(_name_documents(row, pair_votes.text_ids, pair_votes.drawn_from))
    return rows, replace(counts, unmatched=unmatched, identical=identical, tied=tied)


def _key(draft: Conversation, other: Conversation) -> tuple[str, str, str]:
    """The prompt and the two answers in a fixed order."""
    first, second = sorted((draft.answer, other.answer))
    return draft.prompt_digest, first, second


def _from_deliverables(
    specialist: Specialist,
    deliverables: Sequence[tuple[Document, str]],
    conversations: Mapping[str, Conversation],
    counts: PairCounts,
) -> tuple[list[PairRow], PairCounts]:
    """Make rows in which a deliverable is better than its draft."""
    rows, identical = [], 0
    for document, text in deliverables:
        draft = conversations.get(document.draft_id)
        if draft is None:
            continue
        if draft.answer.strip() == text.strip():
            identical += 1
            continue
        row = PairRow(DELIVERABLE, draft.prompt_digest, _chat(specialist, draft), text, draft.answer)
        rows.append(_name_documents(row, [document.document_id], draft.drawn_from))
    return rows, replace(counts, identical=counts.identical + identical)


def _from_revisions(
    specialist: Specialist,
    revisions: Sequence[Revision],
    conversations: Mapping[str, Conversation],
    counts: PairCounts,
) -> tuple[list[PairRow], PairCounts]:
    """Make rows in which a revision is better than its draft."""
    rows = []
    for revision in revisions:
        draft = conversations.get(revision.draft_id)
        if draft is None:
            continue
        row = PairRow(CRITIQUE, draft.prompt_digest, _chat(specialist, draft), revision.text, draft.answer)
        row = replace(row, judgement_ids=(revision.judgement_id,), made_by=revision.made_by)
        rows.append(_name_documents(row, (), draft.drawn_from))
    return rows, replace(counts, critiques=len(rows))


def _name_documents(row: PairRow, document_ids: Iterable[str], drawn_from: Collection[str]) -> PairRow:
    """The row with its documents, so that an erasure finds it."""
    ids = tuple(sorted({*document_ids, *drawn_from}))
    return replace(row, document_ids=ids, drawn_from=tuple(sorted({*drawn_from} - {*document_ids})))


def _limit_pairs(
    judgement: Judgement, pairs: list[tuple[Conversation, Conversation]], limit: int
) -> list[tuple[Conversation, Conversation]]:
    """At most `limit` pairs of one judgement, chosen by a hash; all of them for 0."""
    if not limit:
        return pairs
    return sorted(
        pairs, key=lambda pair: fingerprint("pair", judgement.judgement_id, *(draft.draft_id for draft in pair))
    )[:limit]


def _chat(specialist: Specialist, draft: Conversation) -> tuple[tuple[str, str], ...]:
    """The chat as the specialist gets it: with its system prompt, unless the caller sent one."""
    is_complete = not specialist.system_prompt or draft.messages[0][0] == "system"
    return draft.messages if is_complete else (("system", specialist.system_prompt), *draft.messages)


def _count_tokens(rows: Sequence[PairRow], counter: TokenCounter) -> list[PairRow]:
    """The rows with their tokens, by the longer answer."""
    counts = iter(counter.count([text for row in rows for text in (*_prompt(row), row.chosen, row.rejected)]))
    return [replace(row, tokens=_count_row(row, counts, counter)) for row in rows]


def _count_row(row: PairRow, counts: Iterator[int], counter: TokenCounter) -> int:
    prompt = sum(itertools.islice(counts, len(row.messages)))
    chosen, rejected = next(counts), next(counts)
    answer = row.chosen if chosen >= rejected else row.rejected
    has_system = row.messages[0][0] == "system"
    contents = [*_prompt(row)[int(has_system) :], answer]
    return prompt + max(chosen, rejected) + counter.template_tokens(contents, has_system=has_system)


def _prompt(row: PairRow) -> list[str]:
    return [content for _, content in row.messages]


def _side(document_id: str, sides: Mapping[str, bool], limits: PairLimits) -> bool:
    """True if a document is held out. Without an assignment, it counts as its own component."""
    return sides.get(document_id, is_held_out(document_id, limits.held_out_percent))
