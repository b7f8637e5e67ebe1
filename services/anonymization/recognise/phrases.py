"""Finds many phrases in a text in one pass: a trie of their words is followed from each word, for a few words only."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

WORD = re.compile(r"\w+")
SPACE = re.compile(r"\s+")
NO_SPACE = re.compile(r"\S*")
# A dotted number is not the beginning of a longer one.
NUMBER_GOES_ON = re.compile(r"\.\d")
# Longer phrases are not looked for: a name or an address has fewer words. It bounds what each word of a text costs.
MAX_WORDS = 30


@dataclass
class _Node:
    """The words that may follow others: the last words of phrases with their kinds, and words that others go on with."""

    ends: dict[str, str] = field(default_factory=dict)
    following: dict[str, "_Node"] = field(default_factory=dict)
    lengths: tuple[int, ...] = ()


@dataclass
class _Head:
    """The phrases whose first word is the same; their characters before it differ in number."""

    root: _Node = field(default_factory=_Node)
    before: set[int] = field(default_factory=set)


class Phrases:
    """Phrases with their kinds, to be found with any space between their words."""

    def __init__(self, phrases: Mapping[str, str]) -> None:
        self._heads: dict[str, _Head] = {}
        # Of two that differ in their spaces only, the longer one tells the kind.
        for phrase, kind in sorted(phrases.items(), key=lambda item: len(item[0]), reverse=True):
            first, parts = WORD.search(phrase), phrase.split()
            if first is None or len(parts) > MAX_WORDS:
                continue
            head = self._heads.setdefault(first[0], _Head())
            head.before.add(first.start() - (len(phrase) - len(phrase.lstrip())))
            node = head.root
            for part in parts[:-1]:
                node = node.following.setdefault(part, _Node())
            node.ends.setdefault(parts[-1], kind)
        for head in self._heads.values():
            _sort_lengths(head.root)

    def find(self, text: str) -> Iterator[tuple[int, int, str]]:
        """The longest phrase at each word that begins one, as [start, end) and kind; a longer word around it hides it."""
        for word in WORD.finditer(text) if self._heads else ():
            head = self._heads.get(word[0])
            if head is None:
                continue
            starts = (word.start() - before for before in head.before if before <= word.start())
            found = [(end, start, kind) for start in starts for end, kind in _follow(text, start, head.root)]
            if found:
                end, start, kind = max(found, key=lambda place: (place[0], -place[1]))
                yield start, end, kind


def _follow(text: str, start: int, node: _Node) -> Iterator[tuple[int, str]]:
    """The ends and kinds of the phrases at `start`; one for each number of words."""
    end = start
    while True:
        for length in node.lengths:
            last = text[end : end + length]
            kind = node.ends.get(last)
            # At the end of the text there may be fewer characters.
            if kind is not None and len(last) == length and is_apart(text, start, end + length):
                yield end + length, kind
                break
        if not node.following:
            return
        part = NO_SPACE.match(text, end)
        following = node.following.get(part[0]) if part is not None else None
        space = SPACE.match(text, part.end()) if part is not None and following is not None else None
        if following is None or space is None:
            return
        node, end = following, space.end()


def _sort_lengths(root: _Node) -> None:
    nodes = [root]
    while nodes:
        node = nodes.pop()
        node.lengths = tuple(sorted({len(end) for end in node.ends}, reverse=True))
        nodes += node.following.values()


def is_apart(text: str, start: int, end: int) -> bool:
    """True if no longer word or dotted number surrounds the stretch."""
    last = text[end - 1]
    inside = start > 0 and _is_word(text[start]) and _is_word(text[start - 1])
    goes_on = (
        end < len(text)
        and _is_word(last)
        and (_is_word(text[end]) or (last.isdigit() and NUMBER_GOES_ON.match(text, end) is not None))
    )
    return not (inside or goes_on)


def _is_word(character: str) -> bool:
    return character.isalnum() or character == "_"
