"""Names of organisations, recognised by legal form, by the word for their kind, and by an ampersand."""

import re
from collections.abc import Sequence

from services.anonymization.domain import Finding
from services.anonymization.recognise.lexicon import Lexicon
from services.anonymization.recognise.tokens import Token, is_elided, is_heading, is_space, starts_sentence, tokenise

CLIENT = "CLIENT"
LONGEST = 6
JOINING = (
    "and", "du", "de", "des", "la", "und", "et", "l", "d", "y", "für", "do", "da", "dos", "das", "del", "della", "delle",
    "dei", "di", "los", "las", "van", "voor", "zum", "zur",
)  # fmt: skip
# Capitalised particles that begin a name even where a sentence begins.
FAMILY_PARTICLES = ("Van", "Von", "Ter", "Ten", "De", "Di", "Da", "Du", "Le", "La")
# The end of `Inc.` and `Sp. z o.o.`
DOTTED = re.compile(
    r"\.? z o\.o\.|(?<=Inc)\.|(?<=Corp)\.|(?<=Co)\.|(?<=\.\w)\.|,? & Co\.?(?: (?:KGaA|KG|OHG))?|(?<= e\.V)\."
)
WEAK_FORMS = (
    "SE", "AG", "SA", "AB", "AS", "Sp", "SL", "UG", "Co", "PC", "LP", "Company", "CO", "COMPANY", "Stiftung", "SCI",
)  # fmt: skip


class OrganisationRecogniser:
    """Finds names of organisations in a paragraph."""

    def __init__(self, lexicon: Lexicon) -> None:
        self._lexicon = lexicon
        # Headings and letters write legal forms in capitals.
        self._forms = lexicon.legal_forms | {form.upper() for form in lexicon.legal_forms if len(form) > 2}
        self._certain = (self._by_form, self._by_first, self._by_of, self._by_ampersand, self._by_partners)

    def find(self, text: str) -> list[Finding]:
        """Names, including their legal form."""
        tokens = tokenise(text)
        findings = []
        for index in range(len(tokens)):
            for rule in self._certain if is_heading(text) else (*self._certain, self._by_last):
                if (name := rule(tokens, index)) is not None:
                    first, last, score = name
                    dotted = DOTTED.match(text, tokens[last].bare_end) if rule == self._by_form else None
                    findings.append(
                        Finding(tokens[first].start, dotted.end() if dotted else tokens[last].bare_end, CLIENT, score)
                    )
        return findings

    def _by_form(self, tokens: Sequence[Token], index: int) -> tuple[int, int, float] | None:
        if tokens[index].text not in self._forms or not (
            is_space(tokens[index].gap) or tokens[index].gap in (", ", ") ")
        ):
            return None
        last = index
        if tokens[index].text == "Sp" and not (index + 2 < len(tokens) and tokens[index + 1].text == "z"):
            return None
        while (
            last + 1 < len(tokens)
            and tokens[last + 1].text in self._forms
            and tokens[last + 1].gap in (" ", " & Co. ", ". ")
        ):
            last += 1
        first = self._back(tokens, index)
        named = tokens[index].text not in WEAK_FORMS or self._is_named(tokens, first, index)
        return (first, last, 0.9) if first < index and named else None

    def _by_last(self, tokens: Sequence[Token], index: int) -> tuple[int, int, float] | None:
        token = tokens[index]
        if not token.is_capitalised or not self._lexicon.has("kinds_last", token.bare):
            return None
        following = tokens[index + 1] if index + 1 < len(tokens) else None
        if (
            following
            and token.bare == token.text
            and is_space(following.gap)
            and following.is_capitalised
            and not starts_sentence(tokens, index + 1)
            and (self._lexicon.has("kinds_last", following.bare) or following.text in self._lexicon.legal_forms)
        ):
            return None
        first = self._back(tokens, index)
        if first == index or not self._is_named(tokens, first, index) or not self._is_own(tokens, first, index):
            return None
        last = index
        if token.bare == token.text:
            last = self._place(tokens, index)
        return (first, last, 0.7)

    def _place(self, tokens: Sequence[Token], index: int) -> int:
        """The last token, if `at Home` or `of Leeds` continues the name."""
        if (
            index + 2 < len(tokens)
            and tokens[index + 1].text in ("at", "of")
            and tokens[index + 2].is_capitalised
            and is_space(tokens[index + 1].gap)
            and is_space(tokens[index + 2].gap)
        ):
            return index + 2 if not self._lexicon.has("never", tokens[index + 2].bare) else index
        return index

    def _by_first(self, tokens: Sequence[Token], index: int) -> tuple[int, int, float] | None:
        token = tokens[index]
        stem = token.text.split("-")[0]
        if not token.is_capitalised or not self._lexicon.has("kinds_first", stem):
            return None
        last = index
        for place in range(index + 1, min(index + LONGEST, len(tokens))):
            if not is_space(tokens[place].gap) and not tokens[place].gap.endswith("'"):
                break
            if is_elided(tokens[place]) or (
                tokens[place].is_capitalised and not self._lexicon.has("never", tokens[place].bare)
            ):
                last = place
                if tokens[place].bare != tokens[place].text:
                    break
            elif not self._lexicon.has("connectors", tokens[place].text) and not self._lexicon.has(
                "address_words", tokens[place].text
            ):
                break
        return (index, last, 0.75) if last > index or "-" in token.text else None

    def _by_of(self, tokens: Sequence[Token], index: int) -> tuple[int, int, float] | None:
        """`University of Limerick`."""
        if (
            index + 2 >= len(tokens)
            or not tokens[index].is_capitalised
            or not self._lexicon.has("kinds_of", tokens[index].text)
            or tokens[index + 1].text != "of"
            or not all(is_space(tokens[place].gap) for place in (index + 1, index + 2))
        ):
            return None
        place = index + 3 if tokens[index + 2].text == "the" and index + 3 < len(tokens) else index + 2
        if not tokens[place].is_capitalised or self._lexicon.has("never", tokens[place].bare):
            return None
        last = place
        while (
            last + 1 < len(tokens)
            and tokens[last].bare == tokens[last].text
            and is_space(tokens[last + 1].gap)
            and tokens[last + 1].is_capitalised
            and not starts_sentence(tokens, last + 1)
        ):
            last += 1
        return (index, last, 0.8)

    def _by_ampersand(self, tokens: Sequence[Token], index: int) -> tuple[int, int, float] | None:
        if (
            index == 0
            or tokens[index].gap != " & "
            or not (tokens[index].is_capitalised and tokens[index - 1].is_capitalised)
        ):
            return None
        if self._lexicon.has("departments", tokens[index - 1].text) or self._lexicon.has(
            "departments", tokens[index].bare
        ):
            return None
        first = self._back(tokens, index)
        last = index
        words = [token.bare for token in tokens[first : index + 1] if token.is_capitalised]
        if not any(
            self._lexicon.has("kinds_last", word) or self._lexicon.is_surname(word) or not self._lexicon.is_plain(word)
            for word in words
        ):
            return None
        while (
            last + 1 < len(tokens)
            and tokens[last].bare == tokens[last].text
            and is_space(tokens[last + 1].gap)
            and tokens[last + 1].is_capitalised
            and self._lexicon.has("kinds_last", tokens[last + 1].bare)
        ):
            last += 1
        return (first, last, 0.75)

    def _by_partners(self, tokens: Sequence[Token], index: int) -> tuple[int, int, float] | None:
        """Names made only of surnames, such as `Mills, Ward and Finch` and `Weber-Green`."""
        if "-" in tokens[index].bare and tokens[index].is_capitalised:
            parts = tokens[index].bare.split("-")
            is_single = index == 0 or not (is_space(tokens[index].gap) and tokens[index - 1].is_capitalised)
            both = len(parts) == 2 and all(part[:1].isupper() and self._lexicon.is_surname(part) for part in parts)
            return (index, index, 0.5) if is_single and both else None
        names = tokens[index : index + 4]
        if len(names) < 4 or names[1].gap != ", " or names[2].text != "and" or not is_space(names[3].gap):
            return None
        surnames = [names[0], names[1], names[3]]
        known = all(token.is_capitalised and self._lexicon.is_surname(token.bare) for token in surnames)
        return (index, index + 3, 0.55) if known else None

    def _back(self, tokens: Sequence[Token], index: int) -> int:
        """The first token of the capitalised run that ends before `index`."""
        first = index
        for place in range(index - 1, max(-1, index - 1 - LONGEST), -1):
            token, gap = tokens[place], tokens[place + 1].gap
            legal = place == index - 1 and gap == ", " and tokens[index].text in self._forms
            # `Breweries (Holdings) Limited`
            inserted = tokens[index].text in self._forms and (
                (gap == ") " and place == index - 1) or (gap == " (" and place == index - 2)
            )
            if not (is_space(gap) or legal or inserted or gap in (" & ", " + ", "' ", "’ ") or gap.endswith("'")):
                break
            if token.is_capitalised and (not self._lexicon.has("never", token.bare) or _begins_family(tokens, place)):
                first = place
            elif not self._joins(tokens, place) and not self._is_inside(tokens, place, index):
                break
            if starts_sentence(tokens, place) and "." in token.gap and place == first:
                break
        return first

    def _is_inside(self, tokens: Sequence[Token], place: int, index: int) -> bool:
        """True for the `Service` of `Verre Service Ardennais SARL`: a common word, but before a legal form and not the first."""
        is_formed = tokens[index].text in self._forms and tokens[index].text not in WEAK_FORMS
        return (
            is_formed
            and tokens[place].is_capitalised
            and not starts_sentence(tokens, place)
            and len(tokens[place].text) > 3
        )

    def _joins(self, tokens: Sequence[Token], place: int) -> bool:
        """True for `de` within a name, and for the `of` after a kind, as in `University of Leeds`."""
        if tokens[place].text == "of":
            return place > 0 and self._lexicon.has("kinds_last", tokens[place - 1].bare)
        if tokens[place].text == "and":
            # `Securities and Exchange Commission`, not `Smith and the Commission`
            before = tokens[place - 1] if place else None
            return before is not None and before.is_capitalised and self._lexicon.is_plain(before.bare)
        return tokens[place].text in JOINING

    def _is_own(self, tokens: Sequence[Token], first: int, index: int) -> bool:
        """True unless the words before a kind are a common phrase, such as `Statutory Sick Pay`."""
        words = [token.bare for token in tokens[first:index] if token.is_capitalised]
        if any(self._lexicon.has("not_names", word) or self._lexicon.has("products", word) for word in words[:1]):
            return False
        if not self._lexicon.has("kinds_weak", tokens[index].bare):
            return True
        return any(
            not self._lexicon.is_plain(word)
            or self._lexicon.has("places", word)
            or (self._lexicon.is_surname(word) and not self._lexicon.is_ambiguous(word))
            for word in words
        )

    def _is_named(self, tokens: Sequence[Token], first: int, last: int) -> bool:
        """True if a word before the kind is more than a department or the start of a sentence."""
        words = [token for token in tokens[first:last] if token.is_capitalised]
        if all(self._lexicon.has("departments", token.bare) for token in words):
            return False
        return not (
            len(words) == 1
            and starts_sentence(tokens, first)
            and first == last - 1
            and self._lexicon.is_plain(words[0].bare)
            and words[0].start != 0
        )


def _begins_family(tokens: Sequence[Token], place: int) -> bool:
    """True for the `Van` of `Van Noordzij Transport`."""
    following = tokens[place + 1]
    return tokens[place].text in FAMILY_PARTICLES and following.is_capitalised and following.gap == " "
