"""A value that was found once is found at all its mentions in the document, shortened ones included."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from services.anonymization.domain import Finding, merge
from services.anonymization.recognise import budget
from services.anonymization.recognise.code import code_places
from services.anonymization.recognise.hosts import find_hosts, is_host
from services.anonymization.recognise.lexicon import Lexicon, fold
from services.anonymization.recognise.overlaps import Stretches
from services.anonymization.recognise.phrases import Phrases
from services.anonymization.recognise.tokens import Token, is_space, starts_sentence, tokenise

# A host holds a name that is as sure as this.
SURE = 0.7
# A word that is part of this number of names of files, packages and options is a program's.
LEAST_PARTS = 3
# `openstack-nova-api`, `nova.conf` and `/etc/nova/` name a program, `/home/nova` does not.
PART = re.compile(r"(?<![\w@~])(?<!home/)(?<!users/)(?:(?<=[/._-])\w+|\w+(?=[-._/]\w))(?!\w)", re.IGNORECASE)
# Longer beginnings of a name are the name.
MAX_SHORT_WORDS = 8
SHORTEST_NAME = 3
NOT_ALONE = ("never", "particles", "departments", "not_names", "places", "titles", "titles_male", "titles_female")


class Mentions:
    """Adds the other mentions of found values."""

    def __init__(self, lexicon: Lexicon) -> None:
        self._lexicon = lexicon

    def complete(self, text: str, findings: Iterable[Finding], allowed: Iterable[tuple[int, int]]) -> list[Finding]:
        """Findings at every mention, without overlaps. Stretches that the policy allows stay untouched."""
        known = self._agree(merge(findings, text), text)
        stretches = Stretches(allowed)
        repeated = [
            mention for mention in self._find_mentions(text, known) if not stretches.overlap(mention.start, mention.end)
        ]
        return merge([*known, *repeated], text)

    def _agree(self, known: list[Finding], text: str) -> list[Finding]:
        """The findings; a single word that a model takes for an organisation is a person if it belongs to a person's full name."""
        names = {
            token.bare
            for finding in known
            if finding.entity_type == "PERSON"
            for token in tokenise(text[finding.start : finding.end])
            if token.is_capitalised and not token.is_initial
        }
        return [
            replace(finding, entity_type="PERSON")
            if finding.entity_type == "CLIENT" and text[finding.start : finding.end] in names
            else finding
            for finding in known
        ]

    def _find_mentions(self, text: str, known: list[Finding]) -> list[Finding]:
        words, phrases = self._words(text, known)
        particles = self._family_particles(text, known)
        findings = []
        handles = self._handles(text, known)
        tokens = tokenise(text)
        code = Stretches(code_places(text))
        for place, token in enumerate(tokens):
            kind = words.get(token.bare) or words.get(token.bare.lower()) or handles.get(token.text.lower())
            if kind is None or self._asks(tokens, place):
                continue
            if kind == "USERNAME" or not code.overlap(token.start, token.end) or self._is_name_in_code(token, kind):
                first = _with_particles(tokens, place, particles.get(token.bare, ()))
                findings.append(Finding(tokens[first].start, token.bare_end, kind, 0.3))
        findings += (Finding(start, end, kind, 0.95) for start, end, kind in Phrases(phrases).find(text))
        findings += self._find_hosts(text, known)
        return findings

    def _is_name_in_code(self, token: Token, kind: str) -> bool:
        known = self._lexicon.is_surname(token.bare) or self._lexicon.given(token.bare) is not None
        return kind == "PERSON" and token.is_capitalised and not token.text.isupper() and known

    def _find_hosts(self, text: str, known: Iterable[Finding]) -> Iterator[Finding]:
        """Hosts that hold the name of a person or company: `www.meridian-biologics.com`. Other hosts name nobody."""
        names: set[str] = set()
        for finding in (finding for finding in known if finding.score >= SURE):
            words = [
                re.sub(r"\W", "", fold(token.bare))
                for token in tokenise(text[finding.start : finding.end])
                if token.is_capitalised and token.bare not in self._lexicon.legal_forms
            ]
            if finding.entity_type == "CLIENT" and words:
                names |= {"".join(words), "".join(words[:2])} | ({words[0]} if self._is_telling(words[0]) else set())
            elif finding.entity_type == "PERSON" and len(words) > 1:
                names |= {"".join(words), words[-1]} if self._is_telling(words[-1]) else {"".join(words)}
        for start, end, labels in find_hosts(text) if names else ():
            if not names.isdisjoint(labels):
                yield Finding(start, end, "URL", 0.6)

    def _is_telling(self, word: str) -> bool:
        return len(word) > SHORTEST_NAME and not self._lexicon.is_plain(word) and not self._lexicon.has("never", word)

    def _family_particles(self, text: str, known: Iterable[Finding]) -> dict[str, tuple[str, ...]]:
        """The particles before each surname: `de la` before `Fuente`."""
        particles: dict[str, tuple[str, ...]] = {}
        for finding in known:
            tokens = tokenise(text[finding.start : finding.end]) if finding.entity_type == "PERSON" else ()
            before: list[str] = []
            for token in tokens:
                if self._lexicon.has("particles", token.text):
                    before.append(fold(token.text))
                    continue
                if before:
                    particles.setdefault(token.bare, tuple(before))
                before = []
        return particles

    def _words(self, text: str, known: list[Finding]) -> tuple[dict[str, str], dict[str, str]]:
        words: dict[str, str] = {}
        phrases: dict[str, str] = {}
        lower = {token.text for token in tokenise(text) if not token.is_capitalised}
        parts = _count_parts(text)
        for finding in known:
            budget.check()
            value = text[finding.start : finding.end]
            if finding.entity_type == "PERSON":
                for token in tokenise(value):
                    if self._names_alone(token, lower):
                        words.setdefault(token.bare, "PERSON")
                        if len(token.bare) > SHORTEST_NAME and self._is_mainly_name(token.bare):
                            # Chats write names in small letters, forms in capitals.
                            words.setdefault(token.bare.lower(), "PERSON")
            elif finding.entity_type == "CLIENT":
                phrases.update(dict.fromkeys(self._short_forms(value), "CLIENT"))
                head = tokenise(value)[0]
                if self._stands_alone(head, lower):
                    words.setdefault(head.bare, "CLIENT")
            if len(value) > SHORTEST_NAME and self._is_repeated(parts, finding.entity_type, value):
                phrases.setdefault(value, finding.entity_type)
        return words, phrases

    def _is_repeated(self, parts: Counter[str], kind: str, value: str) -> bool:
        """True if the same characters elsewhere are the same value: not for an account or a password that is an ordinary word."""
        if kind in ("PERSON", "CLIENT"):
            return " " in value
        if kind not in ("USERNAME", "SECRET") or not value.isalpha():
            return True
        is_ordinary = self._lexicon.is_plain(value) and not self._lexicon.is_common_given(value)
        return not is_ordinary and parts[value.lower()] < LEAST_PARTS

    def _asks(self, tokens: Sequence[Token], place: int) -> bool:
        """True for a verb that asks for something, such as `Write a memo`, although the text has somebody whose name is written like it."""
        word = tokens[place].bare
        if place + 1 == len(tokens) or not starts_sentence(tokens, place) or not self._lexicon.is_plain(word):
            return False
        following = tokens[place + 1]
        return (
            is_space(following.gap)
            and self._lexicon.has("objects", following.text)
            and not following.is_capitalised
            and not self._lexicon.is_surname(word)
            and self._lexicon.given(word) is None
        )

    def _handles(self, text: str, known: list[Finding]) -> dict[str, str]:
        """User names built from a person's name: `sjenkins`, `sarah.jenkins`, `jenkins_s`."""
        handles: dict[str, str] = {}
        for finding in known:
            if finding.entity_type != "PERSON":
                continue
            parts = [fold(token.bare) for token in tokenise(text[finding.start : finding.end]) if token.is_capitalised]
            if len(parts) < 2 or len(parts[-1]) < SHORTEST_NAME:
                continue
            first, last = parts[0], parts[-1]
            joined = (f"{first[0]}{last}", f"{last}{first[0]}", f"{first}{last}", f"{last}{first}")
            parted = (
                f"{before}{mark}{after}"
                for before, after in ((first, last), (last, first), (first[0], last), (last, first[0]))
                for mark in "._-"
            )
            handles.update(dict.fromkeys((*joined, *parted), "USERNAME"))
        return {
            handle: kind
            for handle, kind in handles.items()
            if len(handle) > SHORTEST_NAME and not self._lexicon.is_plain(handle) and not is_host(handle)
        }

    def _names_alone(self, token: Token, lower: set[str]) -> bool:
        word = token.bare
        if (
            not token.is_capitalised
            or len(word) < SHORTEST_NAME - 1
            or token.is_initial
            or self._lexicon.has_any(NOT_ALONE, word)
        ):
            return False
        noun = self._lexicon.capitalises_nouns and not self._lexicon.is_surname(word)
        return not (self._lexicon.is_plain(word) and (noun or word.lower() in lower))

    def _is_mainly_name(self, word: str) -> bool:
        """True if the word in small letters is unlikely to mean anything but the name. The dictionary has well-known names, too."""
        known = self._lexicon.is_surname(word) and self._lexicon.is_common_given(word)
        return known or not self._lexicon.is_plain(word)

    def _stands_alone(self, token: Token, lower: set[str]) -> bool:
        word = token.bare
        if (
            len(word) <= SHORTEST_NAME
            or self._lexicon.has("never", word)
            or self._lexicon.has("kinds_first", word)
            or self._lexicon.has("kinds_last", word)
        ):
            return False
        return word.lower() not in lower and (
            not self._lexicon.is_plain(word)
            or (self._lexicon.is_surname(word) and not self._lexicon.is_ambiguous(word))
        )

    def _short_forms(self, value: str) -> list[str]:
        """Beginnings of a name, such as `Meridian Biologics` for `Meridian Biologics Distribution Ltd`."""
        tokens = tokenise(value)
        places = range(1, min(len(tokens) - 1, MAX_SHORT_WORDS))
        return [value[: tokens[place].end] for place in places if tokens[place].is_capitalised]


def _with_particles(tokens: Sequence[Token], place: int, particles: Sequence[str]) -> int:
    """The first token of a surname with its particles, in any case: `De la Fuente` begins a sentence."""
    first = place
    for particle in reversed(particles):
        if first == 0 or not is_space(tokens[first].gap) or fold(tokens[first - 1].text) != particle:
            break
        first -= 1
    return first


def _count_parts(text: str) -> Counter[str]:
    """How often each word, in small letters, is a part of a name of a file, package or option: the `nova` of `openstack-nova-api`."""
    return Counter(match[0].lower() for match in PART.finditer(text))
