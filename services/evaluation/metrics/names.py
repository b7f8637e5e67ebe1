"""Names in a text: people, firms, products and codes."""

import re
from collections.abc import Iterator

# Languages in which a capital letter inside a sentence shows a name. In German every noun has one.
NAMES_STAND_OUT = frozenset({"", "en", "fr", "es", "it", "pt", "nl", "da", "sv", "no", "nb", "fi", "pl", "cs", "ro"})
SENTENCE = re.compile(r"(?<=[.!?:;])\s+|\n+|\|")
WORD = re.compile(r"[^\W_]+(?:[-'’&.][^\W_]+)*")
HEADING = re.compile(r"^\s*(?:#{1,6}\s.*|\*\*[^*]+\*\*:?\s*|__[^_]+__:?\s*)$", re.MULTILINE)
ORDINAL = re.compile(r"\d+(?:st|nd|rd|th|k|m|bn|mn)?", re.IGNORECASE)
# Words with a capital letter that name nobody.
NOT_A_NAME = frozenset(
    {
        "i", *["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"],
        *["january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november", "december"],
        *["q1", "q2", "q3", "q4", "eur", "usd", "gbp", "chf", "jpy"],
    }
)  # fmt: skip


def find_names(text: str, language: str = "") -> frozenset[tuple[str, ...]]:
    """The names of a text, each as its words in lower case. Headings and the first words of sentences are left out.

    In languages with capital letters on every noun, only codes and abbreviations are found.
    """
    names: set[tuple[str, ...]] = set()
    for sentence in SENTENCE.split(HEADING.sub("\n", text)):
        names.update(_names_of(sentence, language))
    return frozenset(names)


def words_of(text: str) -> frozenset[str]:
    """All words of a text in lower case, also the parts of joined ones."""
    words = [_plain(word) for word in WORD.findall(text)]
    return frozenset(words) | {part for word in words for part in re.split(r"[-'’&.]", word)}


def _names_of(sentence: str, language: str) -> Iterator[tuple[str, ...]]:
    run: list[str] = []
    end = -1
    for place, match in enumerate(WORD.finditer(sentence)):
        word, is_next = match[0], match.start() == end + 1
        if not _is_name(word, place, language):
            yield from _close(run)
        elif run and not is_next:
            yield from _close(run)
            run.append(_plain(word))
        else:
            run.append(_plain(word))
        end = match.end()
    yield from _close(run)


def _close(run: list[str]) -> Iterator[tuple[str, ...]]:
    if run:
        yield tuple(run)
        run.clear()


def _is_name(word: str, place: int, language: str) -> bool:
    if ORDINAL.fullmatch(word) or _plain(word) in NOT_A_NAME:
        return False
    if len(word) > 1 and sum(map(str.isupper, word)) > 1:
        return True
    if any(map(str.isdigit, word)) and any(map(str.isalpha, word)):
        return True
    return place > 0 and word[0].isupper() and len(word) > 1 and language in NAMES_STAND_OUT


def _plain(word: str) -> str:
    lower = word.casefold().replace("’", "'")
    return lower.removesuffix("'s").removesuffix("'")
