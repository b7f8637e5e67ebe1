"""Values and names in a sentence, and the list of facts that a prompt is given so that it supports an answer."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from services.synthetic.rows.lexicon import DATE_LINKS, FEW_LINKS, MONTHS, NAME_LINKS

# Languages in which a capital letter inside a sentence shows a name. In German every noun has one.
NAMES_STAND_OUT = frozenset({"en", "fr", "es", "it", "pt", "nl", "da", "sv", "no", "nb", "fi", "pl", "cs", "ro"})
# Most characters of facts for each character of the answer, if the facts are clauses; beyond that they are bare values.
CLAUSE_SHARE = 0.45
MAX_CLAUSE_WORDS = 9
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


@dataclass(frozen=True)
class Run:
    """A value or name, word for word: a figure with its unit, a date, an amount, a name, a code or a citation; and the clause around it.

    `sentence` tells runs of different sentences apart.
    """

    text: str
    clause: str
    sentence: int = 0


class _Token(NamedTuple):
    """A word, the place of its core without punctuation, and its part in runs.

    A word `opens` a sentence or cell, or `breaks` a run after it. A run never crosses an opening quotation mark or bracket (`is_quoted`).
    """

    core: str
    start: int
    is_value: bool
    is_capital: bool
    opens: bool
    breaks: bool
    is_quoted: bool = False


_NO_TOKEN = _Token("", 0, False, False, False, True)
_NUMBER = re.compile(r"[^\W_]*\d(?:[\w.,:/-]*\w)?")


def find_runs(sentence: str, language: str, number: int = 0) -> tuple[Run, ...]:
    """The values and names of a sentence with single spaces, in order. `number` is the sentence's."""
    if _EAST_ASIAN.search(sentence):
        return tuple(Run(match[0], match[0], number) for match in _EAST_ASIAN_VALUE.finditer(sentence))
    tokens = _tokens(sentence)
    links = NAME_LINKS if language in NAMES_STAND_OUT else FEW_LINKS
    runs: list[Run] = []
    place = 0
    while place < len(tokens):
        token = tokens[place]
        last = _run_end(tokens, place, links) if token.is_value or token.is_capital else None
        if last is not None and _is_telling(tokens[place : last + 1], language):
            last = _with_unit(tokens, last)
            text = sentence[tokens[place].start : _core_end(tokens[last])]
            runs.append(Run(text, _clause(sentence, tokens, place, last), number))
        place = place + 1 if last is None else last + 1
    return tuple(runs)


def list_facts(runs: Iterable[Run], known: str, answer_chars: int) -> list[str]:
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
    """True if a text stands in another word for word: not as the end of a longer word, nor as a part of a longer number."""
    place = known.find(text)
    while place >= 0:
        after = known[place + len(text) : place + len(text) + 2]
        is_cut = text[-1].isdigit() and (after[:1].isdigit() or (after[:1] in (".", ",") and after[1:].isdigit()))
        if not is_cut and not _is_inside(text, known, place):
            return True
        place = known.find(text, place + 1)
    return False


def find_values(sentence: str, language: str) -> list[str]:
    """The smallest parts of runs that a source must have: numbers without signs, codes, and names without a sentence's first word."""
    if _EAST_ASIAN.search(sentence):
        return [run.text for run in find_runs(sentence, language)]
    tokens = _tokens(sentence)
    links = NAME_LINKS if language in NAMES_STAND_OUT else FEW_LINKS
    values: list[str] = []
    place = 0
    while place < len(tokens):
        token = tokens[place]
        last = _run_end(tokens, place, links) if token.is_value or token.is_capital else None
        if last is not None and _is_telling(tokens[place : last + 1], language):
            values += _values(sentence, tokens[place : last + 1], language)
        place = place + 1 if last is None else last + 1
    return values


def _values(sentence: str, run: Sequence[_Token], language: str) -> list[str]:
    """The numbers and codes of a run one by one, and the names between them."""
    values: list[str] = []
    name: list[_Token] = []
    for token in [*run, _NO_TOKEN]:
        if token.is_value or token is _NO_TOKEN:
            if len(name) > 1 or (name and language in NAMES_STAND_OUT):
                values.append(sentence[name[0].start : _core_end(name[-1])])
            is_code = token.core.isalnum() and not token.core.isdigit()
            values += [token.core] if is_code else _NUMBER.findall(token.core)
            name = []
        elif not token.opens and token.core not in MONTHS:
            name.append(token)
    return values


def _is_inside(text: str, known: str, place: int) -> bool:
    """True if the text at a place is the end of a longer word or number."""
    before = known[max(0, place - 2) : place]
    if text[0].isdigit():
        return before[-1:].isdigit() or (before[-1:] in (".", ",") and before[:1].isdigit())
    return text[0].isalpha() and before[-1:].isalpha()


def _without_repeats(runs: Sequence[Run], facts: Sequence[str]) -> list[tuple[Run, str]]:
    """The facts in order, without those whose value an earlier one has."""
    chosen: list[tuple[Run, str]] = []
    text = ""
    for run, fact in zip(runs, facts, strict=True):
        if not stands_in(run.text, text):
            chosen.append((run, fact))
            text += f"\n{fact}"
    return chosen


def _tokens(sentence: str) -> list[_Token]:
    """The words of a sentence with single spaces."""
    tokens: list[_Token] = []
    start, opens = 0, True
    for word in sentence.split(" "):
        if word.isalpha():
            tokens.append(_Token(word, start, False, word[0].isupper(), opens, False))
            opens = False
        else:
            token = _token(word, start, opens)
            tokens.append(token)
            opens = not token.core or word[-1:] == ":" or (opens and _LIST_MARK.fullmatch(word) is not None)
        start += len(word) + 1
    return tokens


def _token(word: str, start: int, opens: bool) -> _Token:
    if word[:-1].isalpha() and word[-1] in _BREAKS and len(word) > _LONGEST_ABBREVIATION:
        return _Token(word[:-1], start, False, word[0].isupper(), opens, True)
    core = word.rstrip(".,;:!?") if _CITATION.match(word) else word.lstrip(_OPENING).rstrip(_CLOSING)
    core = core or (word if _SIGN.search(word) else "")
    is_broken = word[-1:] in _BREAKS and not _ABBREVIATED.fullmatch(word.lstrip(_OPENING))
    is_value = _SIGN.search(core) is not None
    is_capital = _CAPITAL.search(core) is not None
    return _Token(
        core, start + word.find(core), is_value, is_capital, opens, not core or is_broken, word[:1] in _QUOTES
    )


def _run_end(tokens: Sequence[_Token], place: int, links: frozenset[str]) -> int:
    """The last token of the run that begins at a value or capitalised word."""
    last = place
    while (following := _next_of_run(tokens, last, links)) is not None:
        last = following
    return last


def _next_of_run(tokens: Sequence[_Token], last: int, links: frozenset[str]) -> int | None:
    following = tokens[last + 1 : last + 4]
    if tokens[last].breaks:
        # A comma inside a date: `May 4, 2026`.
        is_year = bool(following) and len(following[0].core) == 4 and following[0].core.isdigit()
        return last + 1 if tokens[last].is_value and is_year else None
    links = DATE_LINKS if tokens[last].is_value else links
    for step, token in enumerate(following, 1):
        if not token.is_quoted and _continues(token, tokens[last].is_value):
            return last + step
        if token.is_quoted or token.breaks or token.core.lower() not in links:
            break
    return None


def _continues(token: _Token, after_value: bool) -> bool:
    return token.is_value or token.is_capital or (after_value and token.core in MONTHS)


def _is_telling(run: Sequence[_Token], language: str) -> bool:
    """False for a single capitalised word that may not be a name."""
    if len(run) > 1 or run[0].is_value:
        return True
    word = run[0].core
    if len(word) > 1 and any(map(str.isupper, word[1:])):
        return True
    return language in NAMES_STAND_OUT and not run[0].opens and len(word) > 1


def _with_unit(tokens: Sequence[_Token], last: int) -> int:
    """The place of the word after a figure, which says what is counted; else the figure's own. A year counts nothing."""
    core = tokens[last].core
    is_figure = core[-1:].isdigit() and not (len(core) == 4 and core[0] in "12")
    if is_figure and not tokens[last].breaks and last + 1 < len(tokens):
        following = tokens[last + 1].core
        if following.isalpha() and following.lower() not in NAME_LINKS:
            return last + 1
    return last


def _clause(sentence: str, tokens: Sequence[_Token], first: int, last: int) -> str:
    """The run with the words around it, up to the next punctuation and to nine words."""
    room = MAX_CLAUSE_WORDS - (last - first + 1)
    end, start = last, first
    while room > 0 and end + 1 < len(tokens) and not tokens[end].breaks and tokens[end + 1].core:
        end, room = end + 1, room - 1
    while room > 0 and start > 0 and not tokens[start - 1].breaks:
        start, room = start - 1, room - 1
    return sentence[tokens[start].start : _core_end(tokens[end])]


def _core_end(token: _Token) -> int:
    return token.start + len(token.core)
