"""Rows that teach what documents say: answers from a passage and several views of each passage."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from services.synthetic.domain import Grounding, Range
from services.synthetic.rows.budget import Budget, Draft
from services.synthetic.rows.facts import list_facts
from services.synthetic.rows.pieces import BlockKind, Piece, Sentence, join_pieces
from services.synthetic.rows.prompts import Prompts
from services.synthetic.rows.sections import Section, count_words
from services.synthetic.rows.templates import draw

ANSWER, KNOWLEDGE = "answer", "knowledge"
_MAX_WORDS, _MIN_WORDS = 300, 12
_PASSAGE_SHARE = 0.45
# An answer to a question has at most this share of its passage, and a summary this share of its sentences.
_ANSWER_SHARE, _SUMMARY_SHARE = 0.6, 0.4
_MIN_SUMMARISED, _MIN_FACTS = 5, 3
_WORD = re.compile(r"[^\W\d_]{7,30}")
_MAX_TOPIC, _MIN_TOPIC = 60, 4


@dataclass(frozen=True)
class Chunk:
    """A passage about which questions are asked: at most 300 words of a section."""

    heading: str
    pieces: tuple[Piece, ...]

    @cached_property
    def text(self) -> str:
        """The passage as it is read."""
        return join_pieces(self.pieces)

    @cached_property
    def sentences(self) -> tuple[Sentence, ...]:
        """Its sentences, without headings and code."""
        told = (piece for piece in self.pieces if piece.kind in (BlockKind.PROSE, BlockKind.ITEM, BlockKind.TABLE))
        return tuple(sentence for piece in told for sentence in piece.sentences)

    @cached_property
    def topics(self) -> tuple[str, ...]:
        """Names and rare long words, one or two for each sentence, in an order drawn by hash."""
        topics = dict.fromkeys(topic for sentence in self.sentences for topic in _topics(sentence, self.text))
        return tuple(sorted(topics, key=lambda topic: draw(2**32, topic)))

    def about(self, topic: str) -> tuple[Sentence, ...]:
        """The sentences that mention a subject."""
        return tuple(sentence for sentence in self.sentences if topic in sentence.text)


def answer_drafts(prompts: Prompts) -> list[Draft]:
    """One question about each passage, which is in the prompt."""
    chunks = _chunks(prompts.source.sections, prompts.budget)
    return [draft for chunk in chunks for draft in _question(prompts, chunk, ANSWER, "answer", 0)]


def knowledge_drafts(prompts: Prompts) -> list[Draft]:
    """Every view of every passage."""
    drafts: list[Draft] = []
    for number, chunk in enumerate(_chunks(prompts.source.sections, prompts.budget)):
        drafts += _closed(prompts, chunk)
        drafts += _question(prompts, chunk, KNOWLEDGE, "answer", 1)
        if prompts.templates is not None:
            drafts += _question(prompts, chunk, KNOWLEDGE, "extract", 2)
            drafts += [*_summary(prompts, chunk), *_key_facts(prompts, chunk), *_where(prompts, chunk)]
            drafts += _refusal(prompts, chunk, number)
    return drafts


def _chunks(sections: Sequence[Section], budget: Budget) -> list[Chunk]:
    """Passages of whole blocks. A block that is too long by itself is taught by the rows that split it."""
    limit = budget.characters(_PASSAGE_SHARE)
    chunks: list[Chunk] = []
    for section in sections:
        pieces: list[Piece] = []
        for piece in section.body:
            if pieces and count_words(join_pieces([*pieces, piece])) > _MAX_WORDS:
                chunks.append(Chunk(section.heading, tuple(pieces)))
                pieces = []
            pieces.append(piece)
        chunks.append(Chunk(section.heading, tuple(pieces)))
    return [chunk for chunk in chunks if len(chunk.text) <= limit and count_words(chunk.text) >= _MIN_WORDS]


def _question(prompts: Prompts, chunk: Chunk, task: str, view: str, number: int) -> Iterator[Draft]:
    """A question about a subject of the passage, answered by the sentences that mention it."""
    if number < len(chunk.topics):
        topic = chunk.topics[number]
        found = chunk.about(topic)
        answer = _join(found, "\n" if view == "extract" else " ")
        if len(answer) <= _ANSWER_SHARE * len(chunk.text):
            request = prompts.ask(view, task, chunk.pieces[0].start, topic=topic)
            yield _draft(task, prompts.assemble(request, passage=chunk.text), answer, found)


def _closed(prompts: Prompts, chunk: Chunk) -> Iterator[Draft]:
    """A question without its passage."""
    if chunk.topics:
        topic = chunk.topics[-1]
        found = chunk.about(topic)
        if len(answer := _join(found, " ")) <= _ANSWER_SHARE * len(chunk.text) or len(chunk.sentences) < 3:
            request = prompts.ask("closed", chunk.pieces[0].start, topic=topic)
            yield _draft(KNOWLEDGE, request, answer, found, Grounding.CLOSED)


def _where(prompts: Prompts, chunk: Chunk) -> Iterator[Draft]:
    """The place at which a subject stands, with its first sentence; of every other passage."""
    start = chunk.pieces[0].start
    if chunk.topics and chunk.heading and draw(2, "where", chunk.text) == 0:
        topic = chunk.topics[len(chunk.topics) // 2]
        found = chunk.about(topic)[:1]
        place = prompts.ask("where_answer", start, heading=chunk.heading)
        answer = f"{place}\n\n{found[0].text}"
        yield _draft(KNOWLEDGE, prompts.ask("where", start, topic=topic), answer, found, Grounding.CLOSED)


def _summary(prompts: Prompts, chunk: Chunk) -> Iterator[Draft]:
    """The first sentence and those with the most values and names, in order."""
    sentences = chunk.sentences
    if len(sentences) >= _MIN_SUMMARISED:
        count = max(2, int(_SUMMARY_SHARE * len(sentences)))
        ranked = sorted(range(1, len(sentences)), key=lambda n: (-len(sentences[n].runs), n))[: count - 1]
        chosen = [sentences[n] for n in sorted([0, *ranked])]
        prompt = prompts.assemble(prompts.ask("summary", chunk.pieces[0].start), passage=chunk.text)
        yield _draft(KNOWLEDGE, prompt, _join(chosen, " "), chosen)


def _key_facts(prompts: Prompts, chunk: Chunk) -> Iterator[Draft]:
    """The clauses with values and names."""
    facts = list_facts((run for sentence in chunk.sentences for run in sentence.runs), "", len(chunk.text))
    if len(facts) >= _MIN_FACTS:
        told = [sentence for sentence in chunk.sentences if any(run.clause in facts for run in sentence.runs)]
        prompt = prompts.assemble(prompts.ask("key_facts", chunk.pieces[0].start), passage=chunk.text)
        yield _draft(KNOWLEDGE, prompt, "\n".join(f"- {fact}" for fact in facts), told)


def _refusal(prompts: Prompts, chunk: Chunk, number: int) -> Iterator[Draft]:
    """A question that the passage does not answer; for one passage in three, at least one for each document."""
    subjects = [] if prompts.templates is None else prompts.templates.absent
    subjects = [subject for subject in subjects if subject.lower() not in chunk.text.lower()]
    if subjects and number % 3 == 0:
        topic = subjects[draw(len(subjects), "refusal", chunk.text)]
        request = prompts.ask("answer", "refusal", chunk.pieces[0].start, topic=topic)
        answer = prompts.ask("refusal", chunk.pieces[0].start, topic=topic)
        yield _draft(KNOWLEDGE, prompts.assemble(request, passage=chunk.text), answer, ())


def _topics(sentence: Sentence, text: str) -> Iterator[str]:
    names = (run.text for run in sentence.runs if not any(map(str.isdigit, run.text)))
    chosen = (name for name in names if _MIN_TOPIC <= len(name) <= _MAX_TOPIC and not sentence.text.startswith(name))
    yield from list(chosen)[:1]
    words = [word for word in _WORD.findall(sentence.text) if text.count(word) <= 2]
    yield from sorted(words, key=lambda word: (-len(word), word))[:1]


def _join(sentences: Sequence[Sentence], separator: str) -> str:
    return separator.join(sentence.text for sentence in sentences)


def _draft(
    task: str, prompt: str, answer: str, sentences: Sequence[Sentence], grounding: Grounding = Grounding.YES
) -> Draft:
    places: tuple[Range, ...] = tuple((sentence.start, sentence.end) for sentence in sentences)
    return Draft(task, (("user", prompt), ("assistant", answer)), places, grounding)
