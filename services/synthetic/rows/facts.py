"""Values and names in a sentence, and the list of facts that a prompt is given so that it supports an answer."""

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from services.synthetic.rows.lexicon import ARTICLES, DATE_LINKS, FEW_LINKS, MONTHS, NAME_LINKS, SMALL_WORDS
from services.synthetic.rows.structure import is_fragment

# Languages in which a capital letter inside a sentence shows a name. In German every noun has one.
NAMES_STAND_OUT = frozenset({"en", "fr", "es", "it", "pt", "nl", "da", "sv", "no", "nb", "fi", "pl", "cs", "ro"})
# Most characters of facts for each character of the answer, if the facts are clauses; beyond that they are bare values.
CLAUSE_SHARE = 0.45
MAX_CLAUSE_WORDS = 9
MAX_CACHED_WORDS = 1 << 15
# Those of the last documents.
MAX_CACHED_SENTENCES = 2_048
_OPENING, _CLOSING = "\"'“”„«»‘’‹›([{*_#>`~¿¡-–—", "\"'“”„«»‘’‹›)]}*_`~.,;:!?…"
_CITATION = re.compile(r"\[\d+(?:\s?[,–-]\s?\d+)*\]")
_EAST_ASIAN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_EAST_ASIAN_VALUE = re.compile(
    r"[¥￥$€]?[0-9０-９][0-9０-９.,，．:/-]*[%％]?[年月日号時时分円元億亿万千人件個个]*|[A-Z][A-Za-z0-9-]+"
)
_SIGN = re.compile(r"[\d$€£¥₹§%‰°@]|://")
_CAPITAL = re.compile(r"(?<![^\W_])[A-ZÀ-ÖØ-Þ]")
_QUOTES = frozenset('"“„«‚‘‹([{')
_BREAKS = frozenset(".,;:!?…)]”»|")
_ABBREVIATED = re.compile(
    r"(?:[A-Z]|Dr|Mr|Mrs|Ms|Prof|St|Art|Abs|Nr|No|Ziff|Satz|Kap|Mio|Mrd|Tsd|Sec|Ch|Fig|Inc|Co|Hr|Fr|Mme|Sr|Sra|Jan|Feb|Mar|Apr|Jun|Jul|Aug"
    r"|Sept?|Oct|Okt|Nov|Dec|Dez|\d{1,2})\."
)
_LONGEST_ABBREVIATION = 6
_LIST_MARK = re.compile(r"\(?\d{1,3}[.)]")


class ValueRun(NamedTuple):
    """A value or name, word for word: a figure with its unit, a date, an amount, a name, a code or a citation; and the clause around it.

    `sentence` tells runs of different sentences apart.
    """

    text: str
    clause: str
    sentence: int = 0


class _Word(NamedTuple):
    """A word by itself, without the words around it. `core` is the word without punctuation, `lead` the length of what stands before that.

    A sentence or cell begins after a word that `ends_start`, and after an `is_list_mark` that stands at a beginning itself. A run ends
    after a word that `breaks`, and never crosses an opening quotation mark or bracket (`is_quoted`).
    """

    core: str
    lead: int
    is_value: bool
    is_capital: bool
    breaks: bool
    is_quoted: bool
    ends_start: bool
    is_list_mark: bool


class _Words(NamedTuple):
    """The words of a sentence with single spaces, and where each begins.

    `runs` has the last word of the run that begins at each value and capitalised word.
    """

    sentence: str
    places: Sequence[int]
    read: Sequence[_Word]
    runs: Mapping[int, int]

    def opens(self, place: int) -> bool:
        """True if the word stands at the beginning of a sentence or cell."""
        while place > 0 and self.read[place - 1].is_list_mark and not self.read[place - 1].ends_start:
            place -= 1
        return place == 0 or self.read[place - 1].ends_start

    def text(self, first: int, last: int) -> str:
        """The text from the core of one word to that of another."""
        start, end = self.read[first], self.read[last]
        return self.sentence[self.places[first] + start.lead : self.places[last] + end.lead + len(end.core)]


# From the beginning of a word only, so that a long one without a digit is read once.
_NUMBER = re.compile(r"(?<![^\W_])[^\W_]*\d(?:[\w.,:/-]*\w)?")


def find_runs(sentence: str, language: str, number: int = 0) -> tuple[ValueRun, ...]:
    """The values and names of a sentence with single spaces, in order. `number` is the sentence's."""
    if _EAST_ASIAN.search(sentence):
        return tuple(ValueRun(match[0], match[0], number) for match in _EAST_ASIAN_VALUE.finditer(sentence))
    words = _words(sentence, language in NAMES_STAND_OUT)
    runs: list[ValueRun] = []
    free = 0
    for first, end in words.runs.items():
        if first >= free:
            last = end
            if _is_telling(words, first, end, language):
                last = _with_unit(words.read, end)
                runs.append(ValueRun(words.text(first, last), _clause(words, first, last), number))
            free = last + 1
    return tuple(runs)


def list_facts(runs: Iterable[ValueRun], known: str, answer_chars: int) -> list[str]:
    """Facts for the runs that `known` (white space normalised) does not have.

    They are clauses or, if clauses would repeat too much of the answer, bare values, those of one sentence together.
    """
    missing = [run for run in {run.text: run for run in runs}.values() if not stands_in(run.text, known)]
    clauses = _without_repeats(missing, [run.clause for run in missing])
    if sum(len(fact) for _, fact in clauses) <= CLAUSE_SHARE * answer_chars:
        return [fact for _, fact in clauses]
    groups: dict[int, list[str]] = {}
    for run, fact in _without_repeats(missing, [run.text for run in missing]):
        groups.setdefault(run.sentence, []).append(fact)
    return ["; ".join(group) for group in groups.values()]


def stands_in(text: str, known: str) -> bool:
    """True if a text occurs in another word for word: not as the end of a longer word, nor as a part of a longer number."""
    place = known.find(text)
    while place >= 0:
        if not _is_inside(text, known, place) and not (text[-1].isdigit() and _goes_on(known, place + len(text))):
            return True
        place = known.find(text, place + 1)
    return False


def find_values(sentence: str, language: str) -> list[str]:
    """The smallest parts of runs that a source must have: numbers without signs, codes, and names without a sentence's first word."""
    if _EAST_ASIAN.search(sentence):
        return [run.text for run in find_runs(sentence, language)]
    words = _words(sentence, language in NAMES_STAND_OUT)
    values: list[str] = []
    free = 0
    for first, last in words.runs.items():
        if first >= free:
            if _is_telling(words, first, last, language):
                values += _values(words, first, last, language)
            free = last + 1
    return values


def _values(words: _Words, first: int, last: int, language: str) -> list[str]:
    """The numbers and codes of a run one by one, and the names between them."""
    values: list[str] = []
    name: list[int] = []
    for place, word in enumerate(words.read[first : last + 1], first):
        if word.is_value:
            if name:
                values += _name(words, name, language)
                name = []
            is_code = word.core.isalnum() and not word.core.isdigit()
            values += [word.core] if is_code else _NUMBER.findall(word.core)
        elif not words.opens(place) and word.core not in MONTHS:
            name.append(place)
    return values + _name(words, name, language) if name else values


def _name(words: _Words, places: Sequence[int], language: str) -> list[str]:
    """The name at these places; a single word is one only if names stand out in the language."""
    is_name = len(places) > 1 or language in NAMES_STAND_OUT
    return [words.text(places[0], places[-1])] if is_name else []


def _is_inside(text: str, known: str, place: int) -> bool:
    """True if the text at a place is the end of a longer word or number."""
    if text[0].isdigit():
        before = known[max(0, place - 2) : place]
        return before[-1:].isdigit() or (before[-1:] in (".", ",") and before[:1].isdigit())
    return place > 0 and text[0].isalpha() and known[place - 1].isalpha()


def _goes_on(known: str, end: int) -> bool:
    """True if the number that ends there is a part of a longer one."""
    after = known[end : end + 2]
    return after[:1].isdigit() or (after[:1] in (".", ",") and after[1:].isdigit())


def _without_repeats(runs: Sequence[ValueRun], facts: Sequence[str]) -> list[tuple[ValueRun, str]]:
    """The facts in order, without those whose value an earlier one has."""
    chosen: list[tuple[ValueRun, str]] = []
    text = ""
    for run, fact in zip(runs, facts, strict=True):
        if run.text not in text or not stands_in(run.text, text):
            chosen.append((run, fact))
            text += f"\n{fact}"
    return chosen


@lru_cache(maxsize=MAX_CACHED_SENTENCES)
def _words(sentence: str, names_stand_out: bool) -> _Words:
    """Cached, because a sentence is read for the facts of a prompt and for its check."""
    raw = sentence.split(" ")
    read = list(map(_read_word, raw))
    places = list(itertools.accumulate((len(word) + 1 for word in raw), initial=0))
    return _Words(sentence, places, read, _find_ends(read, NAME_LINKS if names_stand_out else FEW_LINKS))


def _find_ends(words: Sequence[_Word], links: frozenset[str]) -> dict[int, int]:
    """The place of the last word of the run that begins at each value and capitalised word, in order."""
    ends: dict[int, int] = {}
    starts = [place for place, word in enumerate(words) if word.is_value or word.is_capital or word.core in MONTHS]
    for place in reversed(starts):
        following = _next_of_run(words, place, links)
        ends[place] = place if following is None else ends.get(following, following)
    return {place: ends[place] for place in starts if words[place].is_value or words[place].is_capital}


@lru_cache(maxsize=MAX_CACHED_WORDS)
def _read_word(word: str) -> _Word:
    """Cached, because most words of a text occur in it and in others before."""
    if word.isalpha():
        return _Word(word, 0, False, word[0].isupper(), False, False, False, False)
    if word[:-1].isalpha() and word[-1] in _BREAKS and len(word) > _LONGEST_ABBREVIATION:
        return _Word(word[:-1], 0, False, word[0].isupper(), True, False, word[-1] == ":", False)
    core = word.rstrip(".,;:!?") if _CITATION.match(word) else word.lstrip(_OPENING).rstrip(_CLOSING)
    core = core or (word if _SIGN.search(word) else "")
    is_broken = word[-1:] in _BREAKS and not _ABBREVIATED.fullmatch(word.lstrip(_OPENING))
    return _Word(
        core,
        word.find(core),
        is_value=_SIGN.search(core) is not None,
        is_capital=_CAPITAL.search(core) is not None,
        breaks=not core or is_broken,
        is_quoted=word[:1] in _QUOTES,
        ends_start=not core or word[-1:] == ":",
        is_list_mark=_LIST_MARK.fullmatch(word) is not None,
    )


def _next_of_run(words: Sequence[_Word], last: int, links: frozenset[str]) -> int | None:
    following = words[last + 1 : last + 4]
    if words[last].breaks:
        # A comma inside a date: `May 4, 2026`.
        is_year = bool(following) and len(following[0].core) == 4 and following[0].core.isdigit()
        return last + 1 if words[last].is_value and is_year else None
    links = DATE_LINKS if words[last].is_value else links
    for step, word in enumerate(following, 1):
        if not word.is_quoted and _continues(word, words[last].is_value):
            return last + step
        if word.is_quoted or word.breaks or word.core.lower() not in links:
            break
    return None


def _continues(word: _Word, after_value: bool) -> bool:
    return word.is_value or word.is_capital or (after_value and word.core in MONTHS)


def _is_telling(words: _Words, first: int, last: int, language: str) -> bool:
    """False for a single capitalised word that may not be a name."""
    if first < last or words.read[first].is_value:
        return True
    word = words.read[first].core
    if len(word) > 1 and any(map(str.isupper, word[1:])):
        return True
    return language in NAMES_STAND_OUT and not words.opens(first) and len(word) > 1


def _with_unit(words: Sequence[_Word], last: int) -> int:
    """The place of the word after a figure, which says what is counted; else the figure's own. A year counts nothing."""
    core = words[last].core
    is_figure = core[-1:].isdigit() and not (len(core) == 4 and core[0] in "12")
    if is_figure and not words[last].breaks and last + 1 < len(words):
        following = words[last + 1].core
        if following.isalpha() and following.lower() not in NAME_LINKS:
            return last + 1
    return last


def _clause(words: _Words, first: int, last: int) -> str:
    """The run with the words around it, up to the next punctuation and to nine words; the run alone if these would cut a bracket."""
    read, room = words.read, MAX_CLAUSE_WORDS - (last - first + 1)
    end, start = last, first
    while room > 0 and end + 1 < len(read) and not read[end].breaks and read[end + 1].core:
        end, room = end + 1, room - 1
    while room > 0 and start > 0 and not read[start - 1].breaks:
        start, room = start - 1, room - 1
    while end > last and read[end].core.lower() in SMALL_WORDS | ARTICLES:
        end -= 1
    clause = words.text(start, end)
    is_cut = is_fragment(clause) or clause.count("(") != clause.count(")")
    return words.text(first, last) if is_cut else clause
