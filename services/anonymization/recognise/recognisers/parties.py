"""Companies by their part in a document: the buyer of an invoice, the employers of a CV, the payee; and companies that everybody knows."""

import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from services.anonymization.domain import Finding
from services.anonymization.recognise.lexicon import Lexicon, fold
from services.anonymization.recognise.tokens import Token, is_elided, is_space, tokenise

CLIENT = "CLIENT"
COMPANIES_FILE = Path(__file__).parents[1] / "companies.txt"
LONGEST_NAME = 7
LONGEST_LINE = 300
LABEL = re.compile(
    r"(?:^|(?<=[\n|]))[ \t>*_-]{0,6}(?P<label>[^\W\d][\w .'’/()-]{0,40}?)[*_]{0,2}[ \t]?(?:[:|]|\t)[*_]{0,2}[ \t]*(?P<value>[^\n|]+)"
)
# `09/2011 - 06/2018 ...`, `since 2018: ...`: a line of a CV.
MONTH = r"(?:\d{1,2}[./]|[^\W\d]{3,9}\.? )?"
YEAR = rf"{MONTH}(?:19|20)\d{{2}}"
YEARS = re.compile(
    rf"(?m:^)[ \t>*•|-]{{0,6}}(?:[^\W\d]{{2,8}} )?{YEAR}(?:[ ]?(?:-|–|—|/|[^\W\d]{{1,5}})[ ]?(?:{YEAR}|[^\W\d]{{3,10}}))?"
    r"[ \t:,|-]{1,6}(?P<rest>[^\n]+)"
)
NOT_COMPANIES = ("never", "departments", "not_names", "places", "person_labels", "nobody")
# Words that join the capitalised words of a company's name.
JOINING = ("connectors", "particles")
AND = ("und", "and", "et", "y", "e", "en", "i")


class PartyRecogniser:
    """Finds companies in a paragraph by the words that announce a party, and by a list of well-known ones."""

    def __init__(self, lexicon: Lexicon) -> None:
        self._lexicon = lexicon

    def find(self, text: str) -> list[Finding]:
        """Companies, without their labels."""
        return [
            *self._find_labelled(text),
            *self._find_employers(text),
            *self._find_payees(text),
            *self._find_known(text),
        ]

    def _find_labelled(self, text: str) -> Iterator[Finding]:
        """`Buyer: Stolarnia Kmiecik`."""
        for match in LABEL.finditer(text):
            if not self._lexicon.has("party_labels", match["label"].strip(" ._*")):
                continue
            start = match.start("value")
            tokens = tokenise(match["value"])
            if tokens and tokens[0].start <= 2 and (last := self._run(tokens, 0)) is not None:
                yield Finding(start + tokens[0].start, start + tokens[last].bare_end, CLIENT, 0.6)

    def _find_employers(self, text: str) -> Iterator[Finding]:
        """In a line that begins with years, what follows `at` or, without it, a comma."""
        for match in YEARS.finditer(text):
            start, tokens = match.start("rest"), tokenise(match["rest"][:LONGEST_LINE])
            employers = [place for place in range(1, len(tokens)) if self._is_announced(tokens, place)]
            if not employers:
                employers = [place for place in range(1, len(tokens)) if tokens[place].gap == ", "][:1]
            for place in employers:
                if (last := self._run(tokens, place)) is not None:
                    yield Finding(start + tokens[place].start, start + tokens[last].bare_end, CLIENT, 0.6)

    def _is_announced(self, tokens: Sequence[Token], place: int) -> bool:
        return is_space(tokens[place].gap) and self._lexicon.has("employed_by", tokens[place - 1].text)

    def _find_payees(self, text: str) -> Iterator[Finding]:
        """`payable to Harrowgate Looms`."""
        tokens = tokenise(text)
        for place in range(2, len(tokens)):
            if not tokens[place].is_capitalised or not (is_space(tokens[place].gap) or tokens[place].gap == ". "):
                continue
            words = [token.text for token in tokens[max(0, place - 3) : place]]
            phrases = (" ".join(words[-count:]) for count in range(1, len(words) + 1))
            if any(self._lexicon.has("payable_to", phrase) for phrase in phrases) and (
                last := self._run(tokens, place)
            ):
                yield Finding(tokens[place].start, tokens[last].bare_end, CLIENT, 0.55)

    def _find_known(self, text: str) -> Iterator[Finding]:
        tokens = tokenise(text)
        place = 0
        while place < len(tokens):
            length = _known_length(tokens, place)
            if length:
                yield Finding(tokens[place].start, tokens[place + length - 1].bare_end, CLIENT, 0.5)
            place += max(1, length)

    def _run(self, tokens: Sequence[Token], first: int) -> int | None:
        """The last token of the company's name that begins at `first`; None if ordinary words stand there."""
        begins_family = (
            self._lexicon.has("particles", tokens[first].text)
            and first + 1 < len(tokens)
            and tokens[first + 1].is_capitalised
        )
        if not tokens[first].is_capitalised or (
            self._lexicon.has_any(NOT_COMPANIES, tokens[first].bare) and not begins_family
        ):
            return None
        last = first
        for place in range(first + 1, min(len(tokens), first + LONGEST_NAME)):
            token = tokens[place]
            if not (is_space(token.gap) or token.gap in (" & ", " + ", "' ", "’ ") or _is_form(token, self._lexicon)):
                break
            if token.is_capitalised or is_elided(token):
                last = place
            elif not self._lexicon.has_any(JOINING, token.text):
                break
            if token.text in AND and place + 1 < len(tokens) and self._is_single_company(tokens, first, place):
                break
        words = [token.bare for token in tokens[first : last + 1] if token.is_capitalised]
        plain = [word for word in words if self._lexicon.is_plain(word) and not self._lexicon.is_surname(word)]
        if self._lexicon.capitalises_nouns or len(words) == 1:
            return last if len(plain) < len(words) else None
        return last

    def _is_single_company(self, tokens: Sequence[Token], first: int, place: int) -> bool:
        """True if the words before an `and` are a company by themselves: `Wackerle Logistik und Bosch`."""
        return _known_length(tokens, place + 1) > 0 or self._lexicon.has("kinds_last", tokens[place - 1].bare)


def _is_form(token: Token, lexicon: Lexicon) -> bool:
    return token.gap == ", " and token.text in lexicon.legal_forms


def _known_length(tokens: Sequence[Token], place: int) -> int:
    """The number of words of the well-known company that stands here; 0 if there is none."""
    known = _companies()
    for words in known.get(fold(tokens[place].bare), ()) if tokens[place].is_capitalised else ():
        end = place + len(words)
        same = tuple(fold(token.bare) for token in tokens[place:end]) == words
        if same and all(is_space(token.gap) or token.gap == " & " for token in tokens[place + 1 : end]):
            return len(words)
    return 0


@cache
def _companies() -> dict[str, list[tuple[str, ...]]]:
    """The well-known companies by their first word, the longest first."""
    lines = (line.strip() for line in COMPANIES_FILE.read_text(encoding="utf-8").splitlines())
    names = {tuple(fold(token.bare) for token in tokenise(line)) for line in lines if line and not line.startswith("#")}
    known: dict[str, list[tuple[str, ...]]] = {}
    for words in sorted(names, key=len, reverse=True):
        known.setdefault(words[0], []).append(words)
    return known
