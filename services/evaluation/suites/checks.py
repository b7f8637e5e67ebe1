"""Checks that an answer follows an instruction, after IFEval (Zhou et al. 2023, arXiv:2311.07911): each is decided by a rule."""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
NUMBER_WORDS = dict(
    zip(
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"],
        range(13),
        strict=True,
    )
)
BULLET = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s+\S", re.MULTILINE)
SENTENCE_END = re.compile(r"[.!?]+(?=\s|$)")
FENCE = re.compile(r"^```\w*\n(.*?)\n?```$", re.DOTALL)


def passes(answer: str, checks: Iterable[Mapping[str, Any]]) -> bool:
    """True if the answer is not empty and passes every check. Raises KeyError for an unknown check."""
    text = answer.strip()
    return bool(text) and all(CHECKS[check["check"]](text, check) for check in checks)


def _occurrences(text: str, word: str) -> list[int]:
    """Where a word or phrase begins in the text, in any capitals; its ending may differ (dog, dogs)."""
    return [match.start() for match in re.finditer(rf"(?<!\w){re.escape(word)}", text, re.IGNORECASE)]


def _contains_any(text: str, check: Mapping[str, Any]) -> bool:
    return any(_occurrences(text, word) for word in check["words"])


def _contains_all(text: str, check: Mapping[str, Any]) -> bool:
    return all(_occurrences(text, word) for word in check["words"])


def _excludes(text: str, check: Mapping[str, Any]) -> bool:
    return not _contains_any(text, check)


def _in_order(text: str, check: Mapping[str, Any]) -> bool:
    place = 0
    for word in check["words"]:
        match = re.compile(rf"(?<!\w){re.escape(word)}(?!\w)").search(text, place)
        if match is None:
            return False
        place = match.end()
    return True


def _count(text: str, check: Mapping[str, Any]) -> bool:
    return _within(len(_occurrences(text, check["word"])), check)


def _words(text: str, check: Mapping[str, Any]) -> bool:
    return _within(len(text.split()), check)


def _sentences(text: str, check: Mapping[str, Any]) -> bool:
    return _within(len(SENTENCE_END.findall(text)), check)


def _bullets(text: str, check: Mapping[str, Any]) -> bool:
    return _within(len(BULLET.findall(text)), check)


def _ends_with(text: str, check: Mapping[str, Any]) -> bool:
    return text.endswith(check["text"])


def _upper_case(text: str, check: Mapping[str, Any]) -> bool:
    del check
    return text.isupper()


def _last_number(text: str, check: Mapping[str, Any]) -> bool:
    numbers = _numbers(text)
    return bool(numbers) and numbers[-1] == check["value"]


def _contains_number(text: str, check: Mapping[str, Any]) -> bool:
    return check["value"] in _numbers(text)


def _json(text: str, check: Mapping[str, Any]) -> bool:
    """The whole answer is JSON, in a code fence or not, and an object with these keys or a list of this length."""
    fenced = FENCE.match(text)
    try:
        value = json.loads(fenced[1] if fenced else text)
    except ValueError:
        return False
    if "length" in check:
        return isinstance(value, list) and len(value) == check["length"]
    return isinstance(value, dict) and sorted(value) == sorted(check["keys"])


def _numbers(text: str) -> Sequence[float]:
    words = re.sub(r"\b[a-z]+\b", lambda word: str(NUMBER_WORDS.get(word[0], word[0])), text.lower())
    return [float(number) for number in NUMBER.findall(words.replace(",", ""))]


def _within(count: int, check: Mapping[str, Any]) -> bool:
    return bool(check.get("min", 0) <= count <= check.get("max", count))


CHECKS: dict[str, Callable[[str, Mapping[str, Any]], bool]] = {
    "bullets": _bullets,
    "contains_all": _contains_all,
    "contains_any": _contains_any,
    "contains_number": _contains_number,
    "count": _count,
    "ends_with": _ends_with,
    "excludes": _excludes,
    "in_order": _in_order,
    "json": _json,
    "last_number": _last_number,
    "sentences": _sentences,
    "upper_case": _upper_case,
    "words": _words,
}
