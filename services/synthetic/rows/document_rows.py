"""The rows of one document: every task that applies, within the specialist's limits, and an account of what no row teaches."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from services.synthetic.domain import (
    Conversation,
    Document,
    DocumentRows,
    Grounding,
    Kind,
    Range,
    Row,
    SkippedText,
    Specialist,
    Text,
)
from services.synthetic.ports import TokenCounter
from services.synthetic.rows.answer_rows import ANSWER, Chunk, answer_drafts, find_chunks
from services.synthetic.rows.budget import RowDraft, keep_fitting, make_budget
from services.synthetic.rows.grounding import unsupported
from services.synthetic.rows.parts import Compose, DocumentPart, fit_parts, plan_parts
from services.synthetic.rows.people_rows import (
    DELIVERABLE,
    EXAMPLE,
    PeopleRows,
    make_deliverable,
    make_example,
    make_test,
)
from services.synthetic.rows.prompts import Prompts
from services.synthetic.rows.prose import has_prose
from services.synthetic.rows.ranges import count_characters, find_spans, merge_ranges, subtract_ranges
from services.synthetic.rows.report_rows import (
    BOARD_SUMMARY,
    REPORT,
    SECTION,
    main_task,
    own_part,
    report_part,
    section_part,
    summary_draft,
    whole_draft,
    whole_part,
)
from services.synthetic.rows.sections import read_source
from services.synthetic.rows.structure import has_words, is_fragment
from services.synthetic.rows.tables import is_table
from services.synthetic.rows.templates import draw

TEMPLATE = "template"


@dataclass
class Refusals:
    """Text that gave no row, by reason: its ranges, and the rows that were refused."""

    ranges: dict[str, list[Range]] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)

    def add(self, reason: str, ranges: Iterable[Range], rows: int = 0) -> None:
        """Count ranges and rows under a reason."""
        self.ranges.setdefault(reason, []).extend(ranges)
        self.rows[reason] = self.rows.get(reason, 0) + rows


@dataclass(frozen=True)
class _Source:
    """What the rows of a document are made from."""

    specialist: Specialist
    prompts: Prompts
    chunks: Sequence[Chunk]


def make_rows(
    document: Document,
    text: Text,
    specialist: Specialist,
    counter: TokenCounter,
    skip: Sequence[Range] = (),
) -> DocumentRows:
    """Make the rows of one document. Equal documents give equal rows.

    The ranges to skip neither become rows nor count as left out: the caller counts them.
    """
    refusals = Refusals()
    if document.kind is Kind.TEST:
        return _make_test_rows(document, text, specialist, counter)
    if document.kind is Kind.EXAMPLE:
        people_rows = make_example(read_source(document, text), (text.prompt or "").strip(), specialist, counter)
        drafts = _choose_wanted(people_rows, EXAMPLE, specialist, refusals)
        return _finish(document, text, specialist, drafts, refusals, counter=counter, skip=skip)
    source = _read(document, text, specialist, counter, skip)
    drafts = _structure(source, refusals)
    return _finish(document, text, specialist, drafts, refusals, counter=counter, skip=skip)


def _read(
    document: Document, text: Text, specialist: Specialist, counter: TokenCounter, skip: Sequence[Range]
) -> _Source:
    source = read_source(document, text, skip)
    prompts = Prompts(source, make_budget(specialist, counter, source.reading.text))
    return _Source(specialist, prompts, find_chunks(source.sections, prompts.budget))


def _make_test_rows(document: Document, text: Text, specialist: Specialist, counter: TokenCounter) -> DocumentRows:
    """The row of a golden document. The specialist's tasks and limits do not apply: it is measured on and never trained on."""
    people_rows = make_test(read_source(document, text), (text.prompt or "").strip(), specialist, counter)
    refusals = Refusals()
    every = [replace(_row(document, specialist, item), key_insights=text.key_insights) for item in people_rows.fitting]
    rows = tuple(_drop_unfit(every, counter, refusals))
    reason = TEMPLATE if every else "no_room"
    skipped = () if rows else (SkippedText(reason, 1, count_characters(text.text, [(0, len(text.text))])),)
    return DocumentRows(rows, skipped)


def make_deliverable_rows(
    document: Document, text: Text, draft: Conversation, specialist: Specialist, counter: TokenCounter
) -> DocumentRows:
    """The deliverable, word for word, as the answer to the chat of its draft."""
    refusals = Refusals()
    people_rows = make_deliverable(read_source(document, text), draft, specialist, counter)
    drafts = _choose_wanted(people_rows, DELIVERABLE, specialist, refusals)
    return _finish(document, text, specialist, drafts, refusals, counter=counter)


def _structure(source: _Source, refusals: Refusals) -> list[RowDraft]:
    prompts, specialist = source.prompts, source.specialist
    sections = prompts.source.sections
    parts = [part for part in plan_parts(sections, prompts.budget) if _is_teachable(part, refusals)]
    if not parts:
        return []
    rows: list[RowDraft] = []
    for compose in _composers(prompts, specialist, parts):
        fitting, too_long = fit_parts(parts, compose, prompts.budget)
        rows += fitting
        _refuse_parts(refusals, too_long)
    views = [draft for draft in _views(source, parts) if draft is not None]
    return rows + keep_fitting(views, prompts.budget)


def _composers(prompts: Prompts, specialist: Specialist, parts: Sequence[DocumentPart]) -> Iterator[Compose]:
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


def _views(source: _Source, parts: Sequence[DocumentPart]) -> Iterator[RowDraft | None]:
    """Rows of a document that teach its parts once more."""
    prompts, chunks, specialist = source.prompts, source.chunks, source.specialist
    main = main_task(prompts.source)
    if _is_wanted(specialist, main) and len(parts) > 1:
        yield whole_draft(prompts, main)
    if _is_wanted(specialist, BOARD_SUMMARY):
        yield summary_draft(prompts)
    if _is_wanted(specialist, ANSWER):
        yield from answer_drafts(prompts, chunks)


def _is_wanted(specialist: Specialist, task: str) -> bool:
    return not specialist.rows.tasks or task in specialist.rows.tasks


def _choose_wanted(people_rows: PeopleRows, task: str, specialist: Specialist, refusals: Refusals) -> list[RowDraft]:
    if not _is_wanted(specialist, task):
        return []
    _refuse_parts(refusals, people_rows.refused)
    return list(people_rows.fitting)


def _is_teachable(part: DocumentPart, refusals: Refusals) -> bool:
    if has_words(part.text) or is_table(part.pieces):
        return True
    refusals.add("no_words", part.places, 1)
    return False


def _refuse_parts(refusals: Refusals, parts: Sequence[DocumentPart]) -> None:
    for part in parts:
        refusals.add("no_room", part.places, 1)


def _finish(
    document: Document,
    text: Text,
    specialist: Specialist,
    drafts: Sequence[RowDraft],
    refusals: Refusals,
    *,
    counter: TokenCounter,
    skip: Sequence[Range] = (),
) -> DocumentRows:
    """Rows of the drafts that are long enough, not alike, within the bounds, drawn, grounded and encodable in training; and the account."""
    different = _drop_repeats(_drop_short(specialist, drafts, refusals))
    drawn = _draw(specialist, _limit_characters(specialist, text, different, refusals), refusals)
    chosen = list(_drop_unsupported(document, drawn, refusals))
    every = [_row(document, specialist, item) for item in chosen]
    rows = tuple(_drop_unfit(every, counter, refusals))
    refusals.add("task" if specialist.rows.tasks else "too_little_text", [(0, len(text.text))])
    return DocumentRows(rows, _account(text.text, skip, rows, refusals))


def _drop_short(specialist: Specialist, drafts: Iterable[RowDraft], refusals: Refusals) -> Iterator[RowDraft]:
    """Without short answers, and without those that are no prose or cut off unless a person wrote them."""
    for item in drafts:
        is_written = not item.places or item.grounding is Grounding.PEOPLE
        if item.places and item.answer_tokens < specialist.rows.min_answer_tokens:
            refusals.add("short_answer", item.places, 1)
        elif not is_written and not has_prose(item.answer):
            refusals.add("no_prose", item.places, 1)
        elif not is_written and is_fragment(item.answer):
            refusals.add("fragment", item.places, 1)
        else:
            yield item


def _drop_unsupported(document: Document, drafts: Iterable[RowDraft], refusals: Refusals) -> Iterator[RowDraft]:
    """Without answers that have a value or name that their prompt lacks, although the prompt should have them all."""
    for item in drafts:
        *messages, _ = item.messages
        is_open = item.grounding is Grounding.YES and item.places
        prompt = "\n\n".join(content for _, content in messages) if is_open else ""
        if is_open and unsupported(item.answer, prompt, document.language):
            refusals.add("unsupported", item.places, 1)
        else:
            yield item


def _drop_unfit(rows: Iterable[Row], counter: TokenCounter, refusals: Refusals) -> Iterator[Row]:
    """Without rows that the base's chat template cannot hold, with which training would stop."""
    for row in rows:
        if counter.can_encode(row.chat):
            yield row
        else:
            refusals.add(TEMPLATE, row.places, 1)


def _drop_repeats(drafts: Iterable[RowDraft]) -> list[RowDraft]:
    """Without rows whose words an earlier row has, of the prompt and answer, or of the answer to a question.

    The earlier row teaches the places of the later one too.
    """
    kept: list[RowDraft] = []
    seen: dict[tuple[str, str, str], int] = {}
    for item in drafts:
        answer = " ".join(item.answer.lower().split())
        prompt = "\n\n".join(content for _, content in item.messages[:-1])
        keys = {("", prompt, answer)}
        if item.task == ANSWER and item.places:
            keys.add((item.task, item.grounding, answer))
        known = next((seen[key] for key in keys if key in seen), None)
        if known is None:
            seen.update(dict.fromkeys(keys, len(kept)))
            kept.append(item)
        else:
            kept[known] = replace(kept[known], places=kept[known].places + item.places)
    return kept


def _limit_characters(
    specialist: Specialist, text: Text, drafts: Iterable[RowDraft], refusals: Refusals
) -> Iterator[RowDraft]:
    """Rows while the answers have no more than the specialist's share of the document's characters; the first rows teach each part once.

    The specialist's own tasks, each of which teaches every part once, come on top.
    """
    percent = specialist.rows.max_answer_percent
    room = percent * len(text.text) / 100 if percent else math.inf
    task_names = {task.name for task in specialist.rows.own_tasks}
    for item in drafts:
        room -= 0 if item.task in task_names else item.answer_characters
        if room >= 0 or not item.places or item.task in task_names:
            yield item
        else:
            refusals.add("many_answers", item.places, 1)


def _draw(specialist: Specialist, drafts: Iterable[RowDraft], refusals: Refusals) -> Iterator[RowDraft]:
    """As many rows as the specialist admits for each document, chosen by a hash."""
    items = list(drafts)
    limit = specialist.rows.max_rows_per_document
    if not limit or len(items) <= limit:
        yield from items
        return
    ranked = sorted(range(len(items)), key=lambda number: draw(2**63, items[number].messages))
    for number in ranked[limit:]:
        refusals.add("rows_per_document", items[number].places, 1)
    yield from (items[number] for number in sorted(ranked[:limit]))


def _row(document: Document, specialist: Specialist, item: RowDraft) -> Row:
    places = merge_ranges(item.places)
    return Row(
        task=item.task,
        document_ids=(document.document_id,),
        messages=item.messages,
        made_by=item.made_by,
        system_prompt=specialist.system_prompt,
        language=document.language,
        tokens=item.tokens,
        grounding=item.grounding,
        places=places,
        spans=find_spans(document.spans, places[0][0], places[-1][1]) if places and document.spans else (),
    )


def _account(text: str, skip: Sequence[Range], rows: Sequence[Row], refusals: Refusals) -> tuple[SkippedText, ...]:
    """The text that no row teaches, each character under one reason."""
    known = [*skip, *(place for row in rows for place in row.places)]
    skipped: list[SkippedText] = []
    for reason, ranges in refusals.ranges.items():
        left = subtract_ranges(ranges, known)
        entry = SkippedText(reason, refusals.rows.get(reason, 0), count_characters(text, left))
        known = [*known, *left]
        if entry.rows or entry.characters:
            skipped.append(entry)
    return tuple(skipped)
