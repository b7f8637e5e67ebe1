"""The rows of one document: every task that applies, within the specialist's limits, and an account of what no row teaches."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from services.synthetic.domain import (
    Conversation,
    Document,
    Kind,
    LeftOutText,
    MadeRows,
    Range,
    Row,
    Specialist,
    Text,
)
from services.synthetic.ports import TokenCounter
from services.synthetic.rows.budget import Counted, Draft, keep_fitting, make_budget
from services.synthetic.rows.knowledge_rows import ANSWER, KNOWLEDGE, answer_drafts, find_chunks, knowledge_drafts
from services.synthetic.rows.parts import Compose, Part, fit_parts, plan_parts
from services.synthetic.rows.people_rows import DELIVERABLE, EXAMPLE, Written, make_deliverable, make_example
from services.synthetic.rows.places import count_characters, find_spans, merge_ranges, subtract_ranges
from services.synthetic.rows.prompts import Prompts
from services.synthetic.rows.report_rows import (
    BOARD_SUMMARY,
    REPORT,
    SECTION,
    main_task,
    outline_draft,
    own_part,
    report_part,
    section_part,
    summary_draft,
    whole_draft,
    whole_part,
)
from services.synthetic.rows.sections import Source, has_words, read_source
from services.synthetic.rows.templates import draw

# The answers of one document have at most this number of times its characters.
MAX_TIMES = 4


@dataclass
class Refused:
    """Text that gave no row, by reason: its ranges, and the rows that were refused."""

    ranges: dict[str, list[Range]] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)

    def add(self, reason: str, ranges: Iterable[Range], rows: int = 0) -> None:
        """Count ranges and rows under a reason."""
        self.ranges.setdefault(reason, []).extend(ranges)
        self.rows[reason] = self.rows.get(reason, 0) + rows


def make_rows(
    document: Document, text: Text, specialist: Specialist, counter: TokenCounter, skip: Sequence[Range] = ()
) -> MadeRows:
    """Make the rows of one document. Equal documents give equal rows.

    The ranges to skip neither become rows nor count as left out: the caller counts them.
    """
    refused = Refused()
    if document.kind is Kind.EXAMPLE:
        written = make_example(read_source(document, text), (text.prompt or "").strip(), specialist, counter)
        counted = _wanted(written, EXAMPLE, specialist, refused)
    else:
        counted = _structure(read_source(document, text, skip), specialist, counter, refused)
    return _finish(document, text, specialist, counted, refused, skip=skip)


def make_deliverable_rows(
    document: Document, text: Text, draft: Conversation, specialist: Specialist, counter: TokenCounter
) -> MadeRows:
    """The deliverable, word for word, as the answer to the chat of its draft."""
    refused = Refused()
    written = make_deliverable(read_source(document, text), draft, specialist, counter)
    return _finish(document, text, specialist, _wanted(written, DELIVERABLE, specialist, refused), refused)


def _structure(source: Source, specialist: Specialist, counter: TokenCounter, refused: Refused) -> list[Counted]:
    prompts = Prompts(source, make_budget(specialist, counter, source.reading.text))
    parts = [part for part in plan_parts(source.sections, prompts.budget) if _is_teachable(part, refused)]
    if not parts:
        return []
    counted: list[Counted] = []
    for compose in _composers(prompts, specialist, parts):
        fitting, too_long = fit_parts(parts, compose, prompts.budget)
        counted += fitting
        _refuse_parts(refused, too_long)
    views = [draft for draft in _views(prompts, specialist, parts) if draft is not None]
    return counted + keep_fitting(views, prompts.budget)


def _composers(prompts: Prompts, specialist: Specialist, parts: Sequence[Part]) -> Iterator[Compose]:
    """The ways in which every part is taught."""
    main = main_task(prompts.source)
    if _is_wanted(specialist, REPORT) or _is_wanted(specialist, main):
        yield _main_composer(prompts, specialist, main, is_single=len(parts) == 1)
    if SECTION in specialist.rows.tasks:
        yield section_part(prompts)
    for task in specialist.rows.own_tasks:
        if _is_wanted(specialist, task.name):
            yield own_part(prompts, task)


def _main_composer(prompts: Prompts, specialist: Specialist, main: str, *, is_single: bool) -> Compose:
    """A text of one part is taught as a whole; a summary in several parts as a report, if the specialist learns reports."""
    if is_single:
        return whole_part(prompts, main if _is_wanted(specialist, main) else REPORT)
    return report_part(prompts, REPORT if _is_wanted(specialist, REPORT) else main)


def _views(prompts: Prompts, specialist: Specialist, parts: Sequence[Part]) -> Iterator[Draft | None]:
    """Rows of a document that teach its parts once more."""
    main = main_task(prompts.source)
    if _is_wanted(specialist, main) and len(parts) > 1:
        yield whole_draft(prompts, main)
    if _is_wanted(specialist, REPORT):
        yield outline_draft(prompts)
    if _is_wanted(specialist, BOARD_SUMMARY):
        yield summary_draft(prompts)
    chunks = find_chunks(prompts.source.sections, prompts.budget)
    if _is_wanted(specialist, ANSWER):
        yield from answer_drafts(prompts, chunks)
    if specialist.rows.knowledge and _is_wanted(specialist, KNOWLEDGE):
        yield from knowledge_drafts(prompts, chunks)


def _is_wanted(specialist: Specialist, task: str) -> bool:
    return not specialist.rows.tasks or task in specialist.rows.tasks


def _wanted(written: Written, task: str, specialist: Specialist, refused: Refused) -> list[Counted]:
    if not _is_wanted(specialist, task):
        return []
    _refuse_parts(refused, written.refused)
    return list(written.fitting)


def _is_teachable(part: Part, refused: Refused) -> bool:
    if has_words(part.text):
        return True
    refused.add("no_words", part.places, 1)
    return False


def _refuse_parts(refused: Refused, parts: Sequence[Part]) -> None:
    for part in parts:
        refused.add("no_room", part.places, 1)


def _finish(
    document: Document,
    text: Text,
    specialist: Specialist,
    counted: Sequence[Counted],
    refused: Refused,
    *,
    skip: Sequence[Range] = (),
) -> MadeRows:
    """Rows of the drafts that are long enough, not alike, within the bounds and drawn; and the account."""
    chosen = list(_draw(specialist, _bounded(text, _distinct(_long_enough(specialist, counted, refused))), refused))
    rows = tuple(_row(document, specialist, item) for item in chosen)
    refused.add("task" if specialist.rows.tasks else "too_little_text", [(0, len(text.text))])
    return MadeRows(rows, _account(text.text, skip, rows, refused))


def _long_enough(specialist: Specialist, counted: Iterable[Counted], refused: Refused) -> Iterator[Counted]:
    """Without short answers; refusals, which teach no text, are short."""
    for item in counted:
        if item.answer_tokens >= specialist.rows.min_answer_tokens or not item.draft.places:
            yield item
        else:
            refused.add("short_answer", item.draft.places, 1)


def _distinct(counted: Iterable[Counted]) -> list[Counted]:
    """Without rows whose words an earlier row has, of the prompt and answer, or of the answer to a question of knowledge.

    The earlier row teaches the places of the later one too.
    """
    kept: list[Counted] = []
    seen: dict[tuple[str, str, str], int] = {}
    for item in counted:
        answer = " ".join(item.draft.answer.lower().split())
        keys = {("", item.draft.messages[-2][1], answer)}
        if item.draft.task in (ANSWER, KNOWLEDGE) and item.draft.places:
            keys.add((item.draft.task, item.draft.grounding, answer))
        known = next((seen[key] for key in keys if key in seen), None)
        if known is None:
            seen.update(dict.fromkeys(keys, len(kept)))
            kept.append(item)
        else:
            draft = kept[known].draft
            kept[known] = replace(kept[known], draft=replace(draft, places=draft.places + item.draft.places))
    return kept


def _bounded(text: Text, counted: Iterable[Counted]) -> Iterator[Counted]:
    """Rows while the answers have no more than four times the document's characters; the first rows teach each part once."""
    room = MAX_TIMES * len(text.text)
    for item in counted:
        room -= len(item.draft.answer)
        if room >= 0 or not item.draft.places:
            yield item


def _draw(specialist: Specialist, counted: Iterable[Counted], refused: Refused) -> Iterator[Counted]:
    """As many rows as the specialist admits for each document, chosen by a hash."""
    items = list(counted)
    limit = specialist.rows.max_rows_per_document
    if not limit or len(items) <= limit:
        yield from items
        return
    ranked = sorted(range(len(items)), key=lambda number: draw(2**63, items[number].draft.messages))
    for number in ranked[limit:]:
        refused.add("rows_per_document", items[number].draft.places, 1)
    yield from (items[number] for number in sorted(ranked[:limit]))


def _row(document: Document, specialist: Specialist, item: Counted) -> Row:
    places = merge_ranges(item.draft.places)
    return Row(
        task=item.draft.task,
        document_ids=(document.document_id,),
        messages=item.draft.messages,
        made_by=item.draft.made_by,
        system_prompt=specialist.system_prompt,
        language=document.language,
        tokens=item.tokens,
        grounding=item.draft.grounding,
        places=places,
        spans=find_spans(document.spans, places[0][0], places[-1][1]) if places and document.spans else (),
    )


def _account(text: str, skip: Sequence[Range], rows: Sequence[Row], refused: Refused) -> tuple[LeftOutText, ...]:
    """The text that no row teaches, each character under one reason."""
    taught = [*skip, *(place for row in rows for place in row.places)]
    left_out: list[LeftOutText] = []
    for reason, ranges in refused.ranges.items():
        left = subtract_ranges(ranges, taught)
        entry = LeftOutText(reason, refused.rows.get(reason, 0), count_characters(text, left))
        taught = [*taught, *left]
        if entry.rows or entry.characters:
            left_out.append(entry)
    return tuple(left_out)
