"""Names of people, recognised by title, given name, initial, or two words that are not in the dictionary."""

import re
from collections.abc import Iterator, Sequence

from services.anonymization.domain import Finding
from services.anonymization.recognise.lexicon import Lexicon
from services.anonymization.recognise.tokens import Token, is_heading, is_space, starts_sentence, tokenise

PERSON = "PERSON"
LONGEST = 5
SHORTEST_UNKNOWN = 4
UNKNOWN_SCORE = 0.32
NOT_FAMILY = ("place_nouns", "kinds_last", "kinds_first", "products")
BEFORE_PLACES = ("in", "at", "near", "im", "nach", "the", "from", "to", "of", "via", "around", "outside")
ORDINAL = re.compile(r",? (?:Jr|Sr|II|III|IV)\b\.?")


class PersonRecogniser:
    """Finds names of people in a paragraph."""

    def __init__(self, lexicon: Lexicon) -> None:
        self._lexicon = lexicon

    def find(self, text: str) -> list[Finding]:
        """Names, without titles."""
        tokens = tokenise(text)
        heading = is_heading(text)
        findings: list[Finding] = []
        index = 0
        while index < len(tokens):
            name = self._at(tokens, index, heading)
            if name is None:
                index += 1
                continue
            last, score, first = name
            ordinal = ORDINAL.match(text, tokens[last].end) if last > first else None
            end = ordinal.end() if ordinal else tokens[last].bare_end
            findings.append(Finding(tokens[first].start, end, PERSON, score))
            index = last + 1
        return findings

    def _at(self, tokens: Sequence[Token], index: int, heading: bool) -> tuple[int, float, int] | None:
        """The name that begins at `index`: last token, score, first token."""
        token = tokens[index]
        if self._lexicon.is_title(token.text) and index + 1 < len(tokens):
            titled = self._after_title(tokens, index)
            if titled is not None:
                return titled
        if not token.is_capitalised or self._is_never(token):
            return None
        if token.is_initial:
            return self._after_initial(tokens, index)
        name = self._by_given(tokens, index) or self._by_comma(tokens, index)
        if name is None and not heading:
            name = self._by_strangeness(tokens, index) or self._single(tokens, index) or self._by_unknown(tokens, index)
        return name

    def _after_title(self, tokens: Sequence[Token], index: int) -> tuple[int, float, int] | None:
        token, following = tokens[index], tokens[index + 1]
        abbreviated = token.text in ("M", "mec") or len(token.text) <= 5
        if not (is_space(following.gap) or (abbreviated and following.gap in (". ", ".\n", " & "))):
            return None
        if token.text in ("M", "Me") and following.gap.strip() != ".":
            return None
        if (
            self._lexicon.is_title(following.text)
            or following.text in ("and", "&")
            or starts_office(self._lexicon, tokens, index + 1)
        ):
            return None
        first = index + 1
        while first + 2 < len(tokens) and following.is_initial and tokens[first + 1].is_initial:
            first, following = first + 1, tokens[first + 1]
        last = self._run(tokens, first, titled=True)
        return None if last is None else (last, 0.95, index + 1)

    def _after_initial(self, tokens: Sequence[Token], index: int) -> tuple[int, float, int] | None:
        last = index
        while (
            last + 1 < len(tokens)
            and last - index < LONGEST
            and tokens[last + 1].is_initial
            and tokens[last + 1].gap in (".", ". ", " ")
        ):
            last += 1
        name = last + 1
        if name >= len(tokens) or tokens[name].gap not in (". ", ".", ".\n") or not tokens[name].is_capitalised:
            return None
        word = tokens[name].bare
        if (
            self._is_never(tokens[name])
            or (
                self._lexicon.is_plain(word)
                and not self._lexicon.is_surname(word)
                and not _is_bracketed(tokens, index, name)
            )
            or starts_like_list(tokens[index])
        ):
            return None
        end = self._run(tokens, name)
        return (end, 0.85, index) if end is not None else None

    def _by_given(self, tokens: Sequence[Token], index: int) -> tuple[int, float, int] | None:
        word = tokens[index].bare
        given = self._lexicon.given(word)
        if given is None or tokens[index].text != word:
            return None
        last = self._run(tokens, index)
        if last is None or last == index:
            return None
        family = tokens[last].bare
        unsure = not self._lexicon.is_common_given(word)
        known_family = not unsure and self._lexicon.is_surname(family)
        if family in self._lexicon.legal_forms or (not known_family and self._lexicon.has_any(NOT_FAMILY, family)):
            return None
        known = self._lexicon.is_surname(family) or not self._lexicon.is_plain(family) or tokens[last].is_initial
        vague = unsure and self._lexicon.has("places", word) and self._lexicon.is_plain(family)
        if vague or (not known and (unsure or word.isupper())):
            return None
        if not known and self._lexicon.has("departments", tokens[index + 1].bare):
            return (index, 0.6, index)
        return (last, 0.6 if unsure else 0.85, index)

    def _by_comma(self, tokens: Sequence[Token], index: int) -> tuple[int, float, int] | None:
        """`Lindqvist, Jonas`, unless it may be a list of given names."""
        if index + 1 >= len(tokens) or tokens[index + 1].gap != ", " or self._lexicon.has("places", tokens[index].bare):
            return None
        family, given = tokens[index], tokens[index + 1]
        is_name = self._lexicon.is_surname(family.text) or not self._lexicon.is_plain(family.text)
        if not is_name or self._lexicon.given(family.text) is not None or not self._is_part(given):
            return None
        if not self._lexicon.is_common_given(given.bare) or not (index == 0 or starts_sentence(tokens, index)):
            return None
        following = tokens[index + 2] if index + 2 < len(tokens) else None
        if following is not None and is_space(following.gap) and following.is_capitalised and not following.is_initial:
            return None
        return (index + 1, 0.85, index)

    def _by_strangeness(self, tokens: Sequence[Token], index: int) -> tuple[int, float, int] | None:
        last = self._run(tokens, index)
        if last is None or last == index:
            return None
        words = [tokens[place].bare for place in range(index, last + 1) if tokens[place].is_capitalised]
        plain = [word for word in words if self._lexicon.is_plain(word)]
        if len(words) < 2 or len(plain) == len(words) or self._lexicon.has_any(NOT_FAMILY, words[-1]):
            return None
        if any(self._lexicon.has_any(("products", "places"), word) for word in words):
            return None
        if all(word.isupper() for word in words) or (self._lexicon.capitalises_nouns and plain):
            return None
        if plain and (
            plain != words[:1] or (starts_sentence(tokens, index) and not self._lexicon.is_surname(words[-1]))
        ):
            return None
        return (last, 0.5, index)

    def _single(self, tokens: Sequence[Token], index: int) -> tuple[int, float, int] | None:
        """A given name by itself, if it is well known or the words around it refer to a person."""
        token = tokens[index]
        following = tokens[index + 1] if index + 1 < len(tokens) else None
        if not self._is_part(token) or (token.text.isupper() and len(token.text) > 1):
            return None
        if following is not None and is_space(following.gap) and following.is_capitalised:
            lists = (*NOT_FAMILY, "streets", "buildings", "places")
            if token.bare == token.text and self._lexicon.has_any(lists, following.bare):
                return None
        if self._lexicon.is_common_given(token.bare):
            return (index, 0.45, index)
        if self._lexicon.given(token.bare) is None or self._lexicon.has("places", token.bare):
            return None
        if self._is_spoken_of(tokens, index):
            return (index, 0.45, index)
        strange = not self._lexicon.is_plain(token.bare) and not self._lexicon.has("not_alone", token.bare)
        unfit = self._lexicon.has("products", token.bare) or self._lexicon.capitalises_nouns
        return (index, 0.35, index) if strange and not unfit and not self._is_after_place(tokens, index) else None

    def _by_unknown(self, tokens: Sequence[Token], index: int) -> tuple[int, float, int] | None:
        """A capitalised word of a sentence that is in no list and no dictionary: most often a surname. The least certain of all rules."""
        token = tokens[index]
        following = tokens[index + 1] if index + 1 < len(tokens) else None
        word = token.bare
        if self._lexicon.capitalises_nouns or len(word) < SHORTEST_UNKNOWN or not word.isalpha() or word.isupper():
            return None
        lists = (*NOT_FAMILY, "streets", "buildings", "places", "person_labels", "titles", "companies", "kinds_of")
        if not self._is_part(token) or self._lexicon.has_any(lists, word) or self._lexicon.is_plain(word):
            return None
        if not word[1:].islower() or self._is_after_place(tokens, index):
            return None
        # In a sentence: small letters or its end follow, and the word is not one of several capitalised ones.
        if (
            following is not None
            and not _ends_sentence(following)
            and not (following.text[0].islower() and (is_space(following.gap) or following.gap in (", ", "'s ")))
        ):
            return None
        if (
            index
            and is_space(token.gap)
            and tokens[index - 1].is_capitalised
            and not starts_sentence(tokens, index - 1)
        ):
            return None
        return (index, UNKNOWN_SCORE, index)

    def _is_spoken_of(self, tokens: Sequence[Token], index: int) -> bool:
        """True after a greeting and before a verb whose subject is a person."""
        if index and is_space(tokens[index].gap) and self._lexicon.has("before_name", tokens[index - 1].text):
            return True
        following = tokens[index + 1] if index + 1 < len(tokens) else None
        return (
            following is not None
            and is_space(following.gap)
            and tokens[index].bare == tokens[index].text
            and self._lexicon.has("after_name", following.text)
        )

    def _is_after_place(self, tokens: Sequence[Token], index: int) -> bool:
        return index > 0 and tokens[index - 1].text.lower() in BEFORE_PLACES

    def _run(self, tokens: Sequence[Token], first: int, titled: bool = False) -> int | None:
        """The last token of the run of name-like words that begins at `first`, or None."""
        after_particle = self._lexicon.has("particles", tokens[first].text) and first + 1 < len(tokens)
        if not self._is_part(tokens[first + 1 if after_particle else first], titled):
            return None
        last = first
        for place in self._continue_name(tokens, first):
            if self._is_part(tokens[place]) and not self._ends_name(tokens[place]):
                last = place
            if place - first >= LONGEST:
                break
        return last if tokens[last].is_capitalised else None

    def _continue_name(self, tokens: Sequence[Token], first: int) -> Iterator[int]:
        for place in range(first + 1, len(tokens)):
            token = tokens[place]
            joined = is_space(token.gap) or (tokens[place - 1].is_initial and token.gap in (". ", "."))
            quoted = token.gap in (" “", ' "', " ‘", "” ", '" ', "’ ") and self._lexicon.given(token.bare) is not None
            particle = self._lexicon.has("particles", token.text)
            # `ROSALIND THORNYCROFT Claimant`
            if len(tokens[first].text) > 1 and tokens[first].text.isupper() and not (particle or token.text.isupper()):
                return
            if self._is_noun_after_article(tokens[place - 1], token):
                return
            joined = joined or quoted or tokens[place - 1].gap in (" “", ' "', " ‘")
            if tokens[place - 1].bare != tokens[place - 1].text or not joined or not (particle or self._is_part(token)):
                return
            yield place

    def _is_noun_after_article(self, before: Token, token: Token) -> bool:
        """True for `den Techniker` after a German name."""
        article = self._lexicon.capitalises_nouns and self._lexicon.has("particles", before.text)
        return article and not before.is_capitalised and self._lexicon.is_plain(token.bare)

    def _is_part(self, token: Token, titled: bool = False) -> bool:
        return (
            token.is_capitalised
            and not any(letter.isdigit() or letter == "_" for letter in token.text)
            and not self._is_never(token)
            and (titled or self._is_short_name(token) or not (token.text.isupper() and 1 < len(token.text) <= 4))
        )

    def _is_short_name(self, token: Token) -> bool:
        """True for names such as ANH and LEE; other short words in capitals are abbreviations."""
        return len(token.text) > 2 and (
            self._lexicon.is_common_given(token.text) or self._lexicon.is_surname(token.text)
        )

    def _ends_name(self, token: Token) -> bool:
        return token.bare in self._lexicon.legal_forms and len(token.bare) > 1

    def _is_never(self, token: Token) -> bool:
        return not token.is_initial and self._lexicon.has_any(("never", "departments", "not_names"), token.bare)


def starts_like_list(token: Token) -> bool:
    """True for the `A.` of a numbered list."""
    return token.start == 0 or "\n" in token.gap


def _ends_sentence(following: Token) -> bool:
    """True if a sentence or a part of it ended before the token."""
    return following.gap[:1] in (".", ";", ":", "!", "?", ")") and following.gap[-1:].isspace()


def _is_bracketed(tokens: Sequence[Token], index: int, name: int) -> bool:
    """True for an initial and a name that fill brackets: `(J. Larrañaga)`."""
    closes = name + 1 == len(tokens) or tokens[name + 1].gap.startswith(")")
    return tokens[index].gap.endswith("(") and closes


def starts_office(lexicon: Lexicon, tokens: Sequence[Token], index: int) -> bool:
    """True for the `le Directeur` of `Monsieur le Directeur`."""
    if tokens[index].text not in ("le", "la") or index + 1 == len(tokens):
        return False
    word = tokens[index + 1].bare
    return lexicon.is_plain(word) and not lexicon.is_surname(word) and lexicon.given(word) is None
