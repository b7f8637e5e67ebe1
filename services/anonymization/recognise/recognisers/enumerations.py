"""People in a list of which others are known: `Quillfeather, Tom Eldridge and Okonjo`."""

from collections.abc import Iterable, Iterator, Sequence

from services.anonymization.domain import Finding
from services.anonymization.recognise.lexicon import Lexicon
from services.anonymization.recognise.overlaps import Stretches
from services.anonymization.recognise.tokens import Token, is_space, tokenise

PERSON = "PERSON"
SCORE = 0.5
# A list has this many entries, of which that many are people by themselves, or half of them.
SHORTEST_LIST, LEAST_KNOWN = 3, 2
LONGEST_NAME = 4
LONGEST_NOTE = 4
AND = frozenset(["and", "und", "et", "y", "e", "en", "i", "oraz", "sowie", "ed"])
JUNIOR = frozenset(["jun", "sen", "jr", "sr", "junior", "senior", "jnr", "snr"])
NOT_PEOPLE = (
    "never", "departments", "not_names", "products", "places", "person_labels", "nobody", "kinds_first", "kinds_last",
)  # fmt: skip

# The first and last token of an entry.
Entry = tuple[int, int]


class EnumerationRecogniser:
    """Finds the names in lists of people that say nothing by themselves. Works on what others found."""

    def __init__(self, lexicon: Lexicon) -> None:
        self._lexicon = lexicon

    def find(self, text: str, findings: Sequence[Finding]) -> Iterator[Finding]:
        """Names that share a list with known people. The time is linear in the text."""
        people = Stretches((finding.start, finding.end) for finding in findings if finding.entity_type == PERSON)
        others = Stretches((finding.start, finding.end) for finding in findings if finding.entity_type != PERSON)
        tokens = tokenise(text)
        for entries in self._lists(tokens):
            places = [(tokens[first].start, tokens[last].bare_end) for first, last in entries]
            known = sum(people.overlap(start, end) for start, end in places)
            if len(entries) < SHORTEST_LIST or not (known >= LEAST_KNOWN or 2 * known >= len(entries)):
                continue
            for (first, last), (start, end) in zip(entries, places, strict=True):
                if (
                    not others.overlap(start, end)
                    and not people.overlap(start, end)
                    and self._may_be(tokens[first : last + 1])
                ):
                    junior = tokens[last + 1] if last + 1 < len(tokens) and _is_junior(tokens[last + 1]) else None
                    yield Finding(start, junior.end if junior else end, PERSON, SCORE)

    def _lists(self, tokens: Sequence[Token]) -> Iterator[list[Entry]]:
        """The entries of each list: capitalised words, with commas, semicolons or `and` between them."""
        entries: list[Entry] = []
        place = 0
        while place < len(tokens):
            entry = self._entry(tokens, place)
            if entry is None:
                if entries:
                    yield entries
                entries, place = [], place + 1
                continue
            entries.append(entry)
            place = _after_note(tokens, entry[1] + 1)
            following = _next_entry(tokens, place)
            if following is None:
                yield entries
                entries = []
            else:
                place = following
        if entries:
            yield entries

    def _entry(self, tokens: Sequence[Token], place: int) -> Entry | None:
        first = place
        # `heirs Quillfeather`
        if not tokens[place].is_capitalised and place + 1 < len(tokens) and is_space(tokens[place + 1].gap):
            first = place + 1
        if not tokens[first].is_capitalised:
            return None
        last = first
        for following in range(first + 1, min(len(tokens), first + LONGEST_NAME)):
            token, before = tokens[following], tokens[following - 1]
            if not is_space(token.gap) and not (before.is_initial and token.gap in (". ", ".")):
                break
            if token.is_capitalised:
                last = following
            elif not self._lexicon.has("particles", token.text) or token.text in AND:
                break
        return first, last

    def _may_be(self, entry: Iterable[Token]) -> bool:
        words = [token for token in entry if token.is_capitalised and not token.is_initial]
        if not words or any(
            not token.bare.replace("-", "").replace("'", "").replace("’", "").isalpha()
            or len(token.bare) <= 2
            or (token.bare.isupper() and len(token.bare) <= 4)
            or self._lexicon.has_any(NOT_PEOPLE, token.bare)
            or token.bare in self._lexicon.legal_forms
            for token in words
        ):
            return False
        return any(
            self._lexicon.is_surname(token.bare)
            or self._lexicon.given(token.bare) is not None
            or not self._lexicon.is_plain(token.bare)
            for token in words
        )


def _is_junior(token: Token) -> bool:
    return is_space(token.gap) and token.text.lower() in JUNIOR


def _after_note(tokens: Sequence[Token], place: int) -> int:
    """The token after `jun.` and after words in brackets."""
    if place < len(tokens) and _is_junior(tokens[place]):
        place += 1
    if place < len(tokens) and tokens[place].gap.strip() == "(":
        for following in range(place + 1, min(len(tokens), place + 1 + LONGEST_NOTE)):
            if ")" in tokens[following].gap:
                return following
    return place


def _next_entry(tokens: Sequence[Token], place: int) -> int | None:
    """The first token of the next entry if a comma, a semicolon or `and` goes on with the list."""
    if place >= len(tokens):
        return None
    mark = tokens[place].gap.strip(" \t\n.)")
    if mark in (",", ";") and tokens[place].gap.count("\n") <= 1:
        return place + 1 if tokens[place].text.lower() in AND and place + 1 < len(tokens) else place
    joined = tokens[place].text.lower() in AND and not tokens[place].is_capitalised and not mark.strip("(")
    return place + 1 if joined and place + 1 < len(tokens) and is_space(tokens[place + 1].gap) else None
