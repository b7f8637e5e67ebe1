"""Questions about a document that none of its rows asks, with references by which evaluation tells what was learned.

They are of two forms: about a subject, answered by the sentences that mention it; and a sentence with a gap, answered by the value or name
that is missing.
"""

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from services.synthetic.domain import Grounding
from services.synthetic.rows.budget import RowDraft
from services.synthetic.rows.facts import ValueRun, find_values
from services.synthetic.rows.knowledge_rows import Chunk, join_sentences
from services.synthetic.rows.lexicon import ARTICLES, SMALL_WORDS
from services.synthetic.rows.pieces import Sentence
from services.synthetic.rows.prompts import Prompts
from services.synthetic.rows.structure import count_words, normalize
from services.synthetic.rows.templates import draw
from tailor.datasets import ClosedBookKind

CLOSED_BOOK = "closed_book"
GAP = "____"
# Longest reference, and the sentences in which a gap can be filled.
_MAX_REFERENCE, _MAX_SENTENCES = 600, 3
_MIN_WORDS, _MAX_SENTENCE, _MAX_VALUE = 8, 400, 60


@dataclass(frozen=True)
class ClosedBookDraft:
    """A question before its tokens are counted. `is_new` means that no row asks without the passage for what it asks."""

    draft: RowDraft
    kind: ClosedBookKind
    values: tuple[str, ...] = ()
    is_new: bool = True

    @property
    def question(self) -> str:
        """What is asked."""
        return self.draft.messages[0][1]


def closed_book_drafts(
    prompts: Prompts, chunks: Sequence[Chunk], rows: Sequence[RowDraft], count: int
) -> list[ClosedBookDraft]:
    """At most `count` questions that the document answers, and one that it does not; never in the words of a row's prompt.

    Questions for what no row asks come first, then those with values or names to check.
    """
    if not count:
        return []
    taken = {row.messages[-2][1] for row in rows}
    closed = [row for row in rows if row.grounding is Grounding.CLOSED]
    drafts = itertools.chain(_subjects(prompts, chunks, closed), _gaps(prompts, chunks, closed))
    ranked = sorted(
        (draft for draft in drafts if draft.question not in taken),
        key=lambda draft: (not draft.is_new, not draft.values, draw(2**32, draft.question)),
    )
    chosen = _choose(ranked, count)
    return chosen + [draft for draft in _absent(prompts) if chosen and draft.question not in taken]


def _choose(ranked: Sequence[ClosedBookDraft], count: int) -> list[ClosedBookDraft]:
    """The first questions whose answers differ, and do not stand in the same place."""
    chosen: list[ClosedBookDraft] = []
    for draft in ranked:
        places = {place for other in chosen for place in other.draft.places}
        answers = {other.draft.answer for other in chosen}
        if len(chosen) < count and places.isdisjoint(draft.draft.places) and draft.draft.answer not in answers:
            chosen.append(draft)
    return chosen


def _subjects(prompts: Prompts, chunks: Sequence[Chunk], closed: Sequence[RowDraft]) -> Iterator[ClosedBookDraft]:
    """A question about each subject that a few sentences of one passage mention, and no other passage."""
    text = prompts.source.reading.text
    for chunk, topic in ((passage, topic) for passage in chunks for topic in passage.topics):
        sentences = chunk.about(topic)
        reference = join_sentences(sentences)
        is_short = len(sentences) <= _MAX_SENTENCES and len(reference) <= _MAX_REFERENCE
        if is_short and text.count(topic) <= chunk.text.count(topic):
            question = prompts.ask("closed_book", chunk.pieces[0].start, topic=topic)
            values = _values(prompts, question, reference)
            is_new = not any(topic in row.messages[-2][1] for row in closed)
            yield ClosedBookDraft(_draft(question, reference, sentences), ClosedBookKind.LEARNABLE, values, is_new)


def _gaps(prompts: Prompts, chunks: Sequence[Chunk], closed: Sequence[RowDraft]) -> Iterator[ClosedBookDraft]:
    """Each sentence with a gap in the place of one of its values or names, if the rest of it occurs in no other sentence."""
    title = normalize(prompts.source.name)
    gaps = [list(_gapped(sentence, title)) for chunk in chunks for sentence in chunk.sentences]
    counts = Counter(gap.text for sentence_gaps in gaps for gap in sentence_gaps)
    taught = {place for row in closed for place in row.places}
    for unique in ([gap for gap in sentence_gaps if counts[gap.text] == 1] for sentence_gaps in gaps):
        if unique:
            gap = unique[draw(len(unique), "gap", unique[0].sentence.text)]
            question = prompts.ask("closed_book_gap", gap.sentence.start, topic=gap.text)
            # A name by itself shows no sign of being one.
            is_figure = any(map(str.isdigit, gap.value))
            values = _values(prompts, question, gap.value) if is_figure else (gap.value,)
            is_new = (gap.sentence.start, gap.sentence.end) not in taught
            yield ClosedBookDraft(_draft(question, gap.value, [gap.sentence]), ClosedBookKind.LEARNABLE, values, is_new)


class _Gap(NamedTuple):
    """A sentence, the value that is taken out of it, and what is left."""

    sentence: Sentence
    value: str
    text: str


def _gapped(sentence: Sentence, title: str) -> Iterator[_Gap]:
    """The sentence without each of its values and names that neither the rest nor the title shows."""
    if sentence.runs and len(sentence.text) <= _MAX_SENTENCE and count_words(sentence.text) >= _MIN_WORDS:
        for value in map(_bare, sentence.runs):
            is_short = 1 < len(value) <= min(_MAX_VALUE, len(sentence.text) // 2)
            if is_short and sentence.text.count(value) == 1 and value not in title:
                yield _Gap(sentence, value, sentence.text.replace(value, GAP))


def _bare(run: ValueRun) -> str:
    """The value without a small word at its end, which is not its unit."""
    head, _, last = run.text.rpartition(" ")
    return head if last in SMALL_WORDS or last in ARTICLES else run.text


def _values(prompts: Prompts, question: str, reference: str) -> tuple[str, ...]:
    """Figures and names of the reference that the question does not show."""
    language, known = prompts.source.reading.language, normalize(question)
    values = (value for line in reference.split("\n") for value in find_values(normalize(line), language))
    return tuple(value for value in dict.fromkeys(values) if value not in known)


def _draft(question: str, reference: str, sentences: Sequence[Sentence]) -> RowDraft:
    places = tuple((sentence.start, sentence.end) for sentence in sentences)
    return RowDraft(CLOSED_BOOK, (("user", question), ("assistant", reference)), places, Grounding.CLOSED)


def _absent(prompts: Prompts) -> Iterator[ClosedBookDraft]:
    """A question about a subject that the document does not mention; none in a language without templates."""
    text = prompts.source.reading.text.lower()
    templates = prompts.templates
    subjects = [subject for subject in templates.closed_book_absent if subject.lower() not in text] if templates else []
    if subjects:
        topic = subjects[draw(len(subjects), "absent", prompts.source.document.document_id)]
        question = prompts.ask("closed_book", "absent", topic=topic)
        yield ClosedBookDraft(_draft(question, prompts.ask("closed_book_refusal"), ()), ClosedBookKind.ABSENT)
