"""Rows that answer a question from a passage, where its sentences state the answer whole."""

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from services.synthetic.rows.budget import RowBudget, RowDraft
from services.synthetic.rows.lexicon import ARTICLES, SMALL_WORDS
from services.synthetic.rows.pieces import BlockKind, Sentence, TextPiece, join_pieces
from services.synthetic.rows.prompts import Prompts
from services.synthetic.rows.sections import Section
from services.synthetic.rows.structure import count_words, has_words, is_fragment
from services.synthetic.rows.tables import ask_table, find_head, is_figures, split_table
from services.synthetic.rows.templates import draw

ANSWER = "answer"
# Words of a passage.
_MAX_WORDS, _MIN_WORDS = 300, 12
_PASSAGE_SHARE = 0.45
# An answer has at most this share of its passage.
_ANSWER_SHARE = 0.6
_WORD = re.compile(r"[^\W\d_]{7,30}")
# Words that say how something is done, by their endings in the four languages.
_MANNER = re.compile(r"(?:ly|ment|mente|lich|able|ible|ing|ed|ten|ung?en)$")
# Words before and after a subject: `the [compression ratio] of`.
_ARTICLES = ARTICLES | frozenset(map(str.capitalize, ARTICLES))
_NO_NAME = re.compile(r"[\d@/`|()<>=\\]")
_END = re.compile(r"[.!?…;。！？][\"”’»)\]*_`]*$")
_LETTERED = re.compile(r"\W{0,3}\w{1,3}\)")
# Its number stands close before it, raised or not.
_FOOTNOTE = re.compile(r"[⁰¹²³⁴-⁹]|\d[A-ZÄÖÜ][a-zäöüß]")
# More words without an end, or with one, are cells that ran together.
_ENDLESS_WORDS, _LONGEST_WORDS = 40, 80
_ENDED = re.compile(r"[^\W\d_]{2}[.!?…][\"”’»)]*$")
_MAX_TOPIC, _MIN_TOPIC, _MIN_PHRASE, _MOST_TOPICS = 60, 4, 7, 8


@dataclass(frozen=True)
class Chunk:
    """A passage about which questions are asked: at most 300 words of a section. Rows of a long table have its header as `head`."""

    heading: str
    pieces: tuple[TextPiece, ...]
    head: TextPiece | None = None

    @cached_property
    def text(self) -> str:
        """The passage as it is read."""
        return join_pieces(self.pieces if self.head is None else (self.head, *self.pieces))

    @cached_property
    def sentences(self) -> tuple[Sentence, ...]:
        """Its sentences that say something by themselves, without headings and code."""
        return tuple(sentence for kind, sentence in self._sentences() if _says_something(kind, sentence.text))

    @cached_property
    def whole(self) -> tuple[Sentence, ...]:
        """Those of them that are no fragments. Items of lists and rows of tables often have no full stop."""
        return tuple(
            sentence
            for kind, sentence in self._sentences()
            if _says_something(kind, sentence.text)
            and not is_fragment(sentence.text)
            and (kind is not BlockKind.PROSE or _END.search(sentence.text))
        )

    def _sentences(self) -> Iterator[tuple[BlockKind, Sentence]]:
        for piece in self.pieces:
            if piece.kind in (BlockKind.PROSE, BlockKind.ITEM, BlockKind.TABLE):
                yield from ((piece.kind, sentence) for sentence in piece.sentences)

    @cached_property
    def is_figures(self) -> bool:
        """True if it is a table of figures."""
        return is_figures(self.pieces)

    @cached_property
    def topics(self) -> tuple[str, ...]:
        """Names and words after articles in an order drawn by hash; if there are none, rare long words. Figures have none."""
        if self.is_figures:
            return ()
        language = self.pieces[0].reading.language
        names = (topic for sentence in self.sentences for topic in _topics(sentence, language))
        topics = dict.fromkeys(itertools.islice(names, _MOST_TOPICS))
        topics = topics or dict.fromkeys(
            word for sentence in self.sentences for word in _rare_words(sentence, self.text)
        )
        return tuple(sorted(topics, key=lambda topic: draw(2**32, topic)))

    def ask(self) -> tuple[str, tuple[Sentence, ...]]:
        """The first subject that sentences of at most a share of the passage state whole, and these sentences; none if there is none."""
        for topic in self.topics:
            sentences = tuple(sentence for sentence in self.sentences if topic in sentence.text)
            is_short = sum(len(sentence.text) for sentence in sentences) <= _ANSWER_SHARE * len(self.text)
            if is_short and all(sentence in self.whole for sentence in sentences):
                return topic, sentences
        return "", ()


def answer_drafts(prompts: Prompts, chunks: Sequence[Chunk]) -> list[RowDraft]:
    """One question about each passage, which is in the prompt."""
    return [draft for chunk in chunks for draft in _answers(prompts, chunk)]


def find_chunks(sections: Sequence[Section], budget: RowBudget) -> list[Chunk]:
    """Passages of whole blocks, and of rows of long tables. Another block that is too long is taught by the rows that split it."""
    limit = budget.characters(_PASSAGE_SHARE)
    chunks: list[Chunk] = []
    for section in sections:
        pieces: list[TextPiece] = []
        count = 0
        for piece in section.body:
            head = find_head(piece)
            if head is not None and (piece.words > _MAX_WORDS or len(piece.text) > limit):
                chunks.append(Chunk(section.heading, tuple(pieces)))
                pieces, count = [], 0
                parts = split_table(piece, _MAX_WORDS, limit - len(head.text) - 2)
                chunks += (Chunk(section.heading, (part,), head) for part in parts)
                continue
            if pieces and count + piece.words > _MAX_WORDS:
                chunks.append(Chunk(section.heading, tuple(pieces)))
                pieces, count = [], 0
            pieces.append(piece)
            count += piece.words
        chunks.append(Chunk(section.heading, tuple(pieces)))
    return [chunk for chunk in chunks if len(chunk.text) <= limit and count_words(chunk.text) >= _MIN_WORDS]


def _answers(prompts: Prompts, chunk: Chunk) -> Iterator[RowDraft]:
    """A question about a subject of the passage; in a table of figures, about its rows and columns."""
    start = chunk.pieces[0].start
    topic, sentences = chunk.ask()
    if sentences:
        places = tuple((sentence.start, sentence.end) for sentence in sentences)
        prompt = prompts.assemble(prompts.ask("answer", ANSWER, start, topic=topic), passage=chunk.text)
        yield RowDraft(ANSWER, (("user", prompt), ("assistant", join_sentences(sentences))), places)
    for piece in chunk.pieces if chunk.is_figures else ():
        head = chunk.head or find_head(piece)
        if head is not None:
            rows = piece.sentences if chunk.head is not None else piece.sentences[2:]
            for question in ask_table(head.text.split("\n")[0], rows, chunk.text):
                request = prompts.ask("answer", ANSWER, piece.start, question.topic, topic=question.topic)
                prompt = prompts.assemble(request, passage=chunk.text)
                yield RowDraft(ANSWER, (("user", prompt), ("assistant", question.answer)), question.places)


def _topics(sentence: Sentence, language: str) -> Iterator[str]:
    names = (run.text for run in sentence.runs if _NO_NAME.search(run.text) is None)
    yield from [name for name in names if _MIN_TOPIC <= len(name) <= _MAX_TOPIC and not sentence.text.startswith(name)][
        :1
    ]
    phrases = _phrases(sentence.text)
    # A German subject has a noun, so a capital letter.
    yield from [phrase for phrase in phrases if language != "de" or not phrase.islower()][:1]


def _phrases(sentence: str) -> list[str]:
    """One or two words after an article, before a small word or punctuation; the longest first."""
    words = sentence.split(" ")
    phrases: list[str] = []
    for number, word in enumerate(words[:-2]):
        if word in _ARTICLES:
            for length in (1, 2):
                taken, following = (
                    words[number + 1 : number + 1 + length],
                    words[number + 1 + length : number + 2 + length],
                )
                if not all(map(_is_content, taken)):
                    break
                if following and following[0] in SMALL_WORDS:
                    phrases.append(" ".join(taken))
    return sorted((phrase for phrase in phrases if len(phrase) >= _MIN_PHRASE), key=len, reverse=True)


def _is_content(word: str) -> bool:
    return word.isalpha() and word not in SMALL_WORDS and word not in _ARTICLES


def _rare_words(sentence: Sentence, text: str) -> Iterator[str]:
    words = [word for word in _WORD.findall(sentence.text) if not _MANNER.search(word) and text.count(word) <= 2]
    yield from sorted(words, key=lambda word: (-len(word), word))[:1]


def _says_something(kind: BlockKind, text: str) -> bool:
    """False for introductions to what follows, figures and signs, words that never end, footnotes, and the rest of a cut sentence."""
    if kind is BlockKind.TABLE:
        return True
    words = count_words(text)
    is_endless = words >= _LONGEST_WORDS or (words >= _ENDLESS_WORDS and not _END.search(text))
    is_rest = text.count(")") - bool(_LETTERED.match(text)) > text.count("(")
    return has_words(text) and not (text.endswith(":") or is_endless or is_rest or _FOOTNOTE.match(text))


def join_sentences(sentences: Sequence[Sentence]) -> str:
    """The sentences in one paragraph; what does not end like a sentence stands on a line by itself."""
    text = ""
    for sentence in sentences:
        text += ("" if not text else " " if _ENDED.search(text) else "\n") + sentence.text
    return text
