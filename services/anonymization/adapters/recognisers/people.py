"""Names of people, by title, by given name, by initial and by two words that no dictionary knows."""

from collections.abc import Iterator

from services.anonymization.adapters.lexicon import Lexicon
from services.anonymization.adapters.recognisers.tokens import Token, is_heading, is_space, starts_sentence, tokenise
from services.anonymization.domain import Finding

PERSON = "PERSON"
LONGEST = 5


class People:
    """Finds names of people in a paragraph."""

    def __init__(self, lexicon: Lexicon) -> None:
        self._lexicon = lexicon

    def find(self, text: str) -> list[Finding]:
        """Names, without their titles."""
        tokens = tokenise(text)
        heading = is_heading(text)
        findings: list[Finding] = []
        index = 0
        while index < len(tokens):
            found = self._at(tokens, index, heading)
            if found is None:
                index += 1
                continue
            last, score, first = found
            findings.append(Finding(tokens[first].start, tokens[last].bare_end, PERSON, score))
            index = last + 1
        return findings

    def is_title(self, word: str) -> bool:
        """True for Mr, Frau, Dr and the like."""
        name = word.rstrip(".")
        lists = ("titles_male", "titles_female", "titles")
        return name[:1].isupper() | (name == "mec") and any(self._lexicon.has(each, name) for each in lists)

    def _at(self, tokens: list[Token], index: int, heading: bool) -> tuple[int, float, int] | None:
        """(last token, score, first token) of the name that begins here."""
        token = tokens[index]
        if self.is_title(token.text) and index + 1 < len(tokens):
            return self._after_title(tokens, index)
        if not token.is_capitalised or self._is_never(token):
            return None
        if token.is_initial:
            return self._after_initial(tokens, index)
        return self._by_given(tokens, index) or (None if heading else self._by_strangeness(tokens, index))

    def _after_title(self, tokens: list[Token], index: int) -> tuple[int, float, int] | None:
        token, following = tokens[index], tokens[index + 1]
        abbreviated = token.text in ("M", "mec") or len(token.text) <= 4
        if not (is_space(following.gap) or (abbreviated and following.gap in (". ", ".\n"))):
            return None
        if token.text == "M" and following.gap.strip() != ".":
            return None
        last = self._run(tokens, index + 1)
        return None if last is None or self.is_title(following.text) else (last, 0.95, index + 1)

    def _after_initial(self, tokens: list[Token], index: int) -> tuple[int, float, int] | None:
        last = index
        while last + 1 < len(tokens) and tokens[last + 1].is_initial and tokens[last + 1].gap in (".", ". ", " "):
            last += 1
        name = last + 1
        if name >= len(tokens) or tokens[name].gap not in (". ", ".", ".\n") or not tokens[name].is_capitalised:
            return None
        word = tokens[name].bare
        if (
            self._is_never(tokens[name])
            or (self._lexicon.is_plain(word) and not self._lexicon.is_surname(word))
            or starts_like_list(tokens[index])
        ):
            return None
        end = self._run(tokens, name)
        return (end, 0.85, index) if end is not None else None

    def _by_given(self, tokens: list[Token], index: int) -> tuple[int, float, int] | None:
        word = tokens[index].bare
        given = self._lexicon.given(word)
        if given is None or tokens[index].text != word:
            return None
        last = self._run(tokens, index)
        if last is None or last == index:
            return None
        family = tokens[last].bare
        unsure = self._lexicon.is_ambiguous(word)
        if self._lexicon.has("kinds_last", family) or family in self._lexicon.legal_forms:
            return None
        if unsure and not (self._lexicon.is_surname(family) or not self._lexicon.is_plain(family)):
            return None
        return (last, 0.6 if unsure else 0.85, index)

    def _by_strangeness(self, tokens: list[Token], index: int) -> tuple[int, float, int] | None:
        last = self._run(tokens, index)
        if last is None or last == index:
            return None
        words = [tokens[place].bare for place in range(index, last + 1) if tokens[place].is_capitalised]
        plain = [word for word in words if self._lexicon.is_plain(word)]
        if len(words) < 2 or len(plain) == len(words) or self._lexicon.has("kinds_last", words[-1]):
            return None
        if plain and (
            plain != words[:1] or (starts_sentence(tokens, index) and not self._lexicon.is_surname(words[-1]))
        ):
            return None
        return (last, 0.5, index)

    def _run(self, tokens: list[Token], first: int) -> int | None:
        """The last token of a run of name-like words that begins at `first`; None where there is none."""
        after_particle = self._lexicon.has("particles", tokens[first].text) and first + 1 < len(tokens)
        if not self._is_part(tokens[first + 1 if after_particle else first]):
            return None
        last = first
        for place in self._following(tokens, first):
            if self._is_part(tokens[place]) and not self._ends_name(tokens[place]):
                last = place
            if place - first >= LONGEST:
                break
        return last if tokens[last].is_capitalised else None

    def _following(self, tokens: list[Token], first: int) -> Iterator[int]:
        for place in range(first + 1, len(tokens)):
            token = tokens[place]
            joined = is_space(token.gap) or (tokens[place - 1].is_initial and token.gap in (". ", "."))
            particle = self._lexicon.has("particles", token.text)
            if tokens[place - 1].bare != tokens[place - 1].text or not joined or not (particle or self._is_part(token)):
                return
            yield place

    def _is_part(self, token: Token) -> bool:
        return (
            token.is_capitalised
            and not any(letter.isdigit() or letter == "_" for letter in token.text)
            and not self._is_never(token)
            and not (token.text.isupper() and 1 < len(token.text) <= 4)
        )

    def _ends_name(self, token: Token) -> bool:
        return token.bare in self._lexicon.legal_forms and len(token.bare) > 1

    def _is_never(self, token: Token) -> bool:
        return self._lexicon.has("never", token.bare) or (
            self._lexicon.has("departments", token.bare) and not token.is_initial
        )


def starts_like_list(token: Token) -> bool:
    """True for `A. Something`, which numbers a list."""
    return token.start == 0 or "\n" in token.gap
