"""Values and names in a sentence, and the list of facts that a prompt is given so that it supports an answer."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

# Languages in which a capital letter inside a sentence shows a name. In German every noun has one.
NAMES_STAND_OUT = frozenset({"en", "fr", "es", "it", "pt", "nl", "da", "sv", "no", "nb", "fi", "pl", "cs", "ro"})
# Most characters of facts for each character of the answer, if the facts are clauses; beyond that they are bare values.
CLAUSE_SHARE = 0.45
MAX_CLAUSE_WORDS = 9
_TOKEN = re.compile(r"\S+")
_OPENING, _CLOSING = "\"'“”„«»‘’‹›([{*_#>`~¿¡-–—", "\"'“”„«»‘’‹›)]}*_`~.,;:!?…"
_CITATION = re.compile(r"\[\d+(?:\s?[,–-]\s?\d+)*\]")
_EAST_ASIAN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_EAST_ASIAN_VALUE = re.compile(r"[¥￥$€]?[0-9０-９][0-9０-９.,，．:/-]*[%％]?[年月日号時时分円元億亿万千人件個个]*|[A-Z][A-Za-z0-9-]+")
_SIGNS = frozenset("$€£¥₹§%‰°@")
_NAME_LINKS = frozenset(
    "of de del della der den des du von van vom zu zum zur für for the la las los le les au aux à al à e y & to bis et".split()
)
# Links that join nouns in German, such as `der`, would make a name of half of a sentence.
_FEW_LINKS = frozenset("von van vom zu de & of".split())
_DATE_LINKS = frozenset("de del of den der du le el".split())
_MONTHS = frozenset(
    "janvier février mars avril mai juin juillet août septembre octobre novembre décembre "
    "enero febrero marzo abril mayo junio julio agosto septiembre setiembre octubre noviembre diciembre "
    "january february march april may june july august september october november december".split()
)
_ABBREVIATED = re.compile(
    r"(?:[A-Z]|Dr|Mr|Mrs|Ms|Prof|St|Art|Abs|Nr|No|Ziff|Satz|Kap|Mio|Mrd|Tsd|Sec|Ch|Fig|Inc|Co|Hr|Fr|Mme|Sr|Sra|Jan|Feb|Mar|Apr|Jun|Jul|Aug"
    r"|Sept?|Oct|Okt|Nov|Dec|Dez|\d{1,2})\."
)
_LIST_MARK = re.compile(r"\(?\d{1,3}[.)]")


@dataclass(frozen=True)
class Run:
    """A value or name, word for word: a figure with its unit, a date, an amount, a name, a code or a citation; and the clause around it."""

    text: str
    clause: str


@dataclass(frozen=True)
class _Token:
    start: int
    end: int
    core: str
    core_start: int
    is_value: bool
    is_capital: bool
    opens: bool
    breaks: bool


def find_runs(sentence: str, language: str, small_words: frozenset[str]) -> tuple[Run, ...]:
    """The values and names of a sentence, in order. `small_words` are words that the document also has in small letters."""
    if _EAST_ASIAN.search(sentence):
        return tuple(Run(match[0], match[0]) for match in _EAST_ASIAN_VALUE.finditer(sentence))
    tokens = list(_tokens(sentence))
    links = _NAME_LINKS if language in NAMES_STAND_OUT else _FEW_LINKS
    runs: list[Run] = []
    place = 0
    while place < len(tokens):
        last = _run_end(tokens, place, links)
        if last is not None and _is_telling(tokens[place : last + 1], language, small_words):
            last = _with_unit(tokens, last)
            runs.append(Run(sentence[tokens[place].core_start : _core_end(tokens[last])], _clause(sentence, tokens, place, last)))
        place = place + 1 if last is None else last + 1
    return tuple(runs)


def list_facts(runs: Iterable[Run], known: str, answer_chars: int) -> list[str]:
    """Facts for the runs that `known` (white space normalised) does not have: clauses, or bare values if clauses would repeat the answer."""
    missing = [run for run in dict.fromkeys(runs) if run.text not in known]
    clauses = _without_repeats(missing, [run.clause for run in missing])
    if sum(map(len, clauses)) <= CLAUSE_SHARE * answer_chars:
        return clauses
    return _without_repeats(missing, [run.text for run in missing])


def _without_repeats(runs: Sequence[Run], facts: Sequence[str]) -> list[str]:
    """The facts in order, without those whose value an earlier one has."""
    chosen: list[str] = []
    text = ""
    for run, fact in zip(runs, facts, strict=True):
        if run.text not in text:
            chosen.append(fact)
            text += f"\n{fact}"
    return chosen


def _tokens(sentence: str) -> Iterator[_Token]:
    opens = True
    for match in _TOKEN.finditer(sentence):
        word = match[0]
        core = word.lstrip(_OPENING).rstrip(_CLOSING) if not _CITATION.match(word) else word.rstrip(".,;:!?")
        if not core and not _SIGNS.isdisjoint(word):
            core = word
        start = match.start() + (word.find(core) if core else 0)
        is_value = any(map(str.isdigit, core)) or not _SIGNS.isdisjoint(core) or "://" in core
        is_capital = core[:1].isupper()
        breaks = not core or (word[-1] in ".,;:!?…)]”»|" and not _ABBREVIATED.fullmatch(word.lstrip(_OPENING)))
        yield _Token(match.start(), match.end(), core, start, is_value, is_capital, opens, breaks)
        opens = not core or word[-1] == ":" or (opens and _LIST_MARK.fullmatch(word) is not None)


def _run_end(tokens: Sequence[_Token], place: int, links: frozenset[str]) -> int | None:
    """The last token of the run that begins at a token; None if none begins there."""
    if not (tokens[place].is_value or tokens[place].is_capital):
        return None
    last = place
    while (following := _next_of_run(tokens, last, links)) is not None:
        last = following
    return last


def _next_of_run(tokens: Sequence[_Token], last: int, links: frozenset[str]) -> int | None:
    if last + 1 >= len(tokens):
        return None
    if tokens[last].breaks:
        # A comma inside a date: `May 4, 2026`.
        is_year = len(tokens[last + 1].core) == 4 and tokens[last + 1].core.isdigit()
        return last + 1 if tokens[last].is_value and is_year else None
    for step in (1, 2, 3):
        if last + step >= len(tokens):
            return None
        token = tokens[last + step]
        if _continues(token, tokens[last].is_value):
            return last + step
        if token.breaks or token.core.lower() not in (_DATE_LINKS if tokens[last].is_value else links):
            return None
    return None


def _continues(token: _Token, after_value: bool) -> bool:
    return token.is_value or token.is_capital or (after_value and token.core in _MONTHS)


def _is_telling(run: Sequence[_Token], language: str, small_words: frozenset[str]) -> bool:
    """False for a single capitalised word that shows no name."""
    if len(run) > 1 or run[0].is_value:
        return True
    word = run[0].core
    if len(word) > 1 and any(map(str.isupper, word[1:])):
        return True
    stands_out = language in NAMES_STAND_OUT and not run[0].opens
    return stands_out and len(word) > 1 and word.lower() not in small_words


def _with_unit(tokens: Sequence[_Token], last: int) -> int:
    """The place of the word after a figure, which says what is counted; else the figure's own."""
    if tokens[last].is_value and not tokens[last].breaks and last + 1 < len(tokens):
        following = tokens[last + 1].core
        if following.isalpha() and following.lower() not in _NAME_LINKS:
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
    return sentence[tokens[start].core_start : _core_end(tokens[end])]


def _core_end(token: _Token) -> int:
    return token.core_start + len(token.core)
