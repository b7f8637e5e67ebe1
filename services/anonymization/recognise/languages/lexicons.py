"""The lexicon of a language, and one for a text in several languages."""

import threading
from collections.abc import Callable, Container, Iterable, Sequence

from services.anonymization.recognise.languages.dictionaries import has_polish_surname, is_polish_surname, polish_given
from services.anonymization.recognise.lexicon import Given, Lexicon

NOT_COMMON = ("ambiguous", "not_alone", "never", "departments", "places")


class PolishLexicon(Lexicon):
    """Knows names in every case: `Janowi Kowalskiemu`."""

    def given(self, word: str) -> Given | None:
        return super().given(word) or polish_given(word)

    def is_surname(self, word: str) -> bool:
        return super().is_surname(word) or self.uses("pl_PL", word) or is_polish_surname(word)

    def may_be_surname(self, word: str) -> bool:
        return self.is_surname(word) or has_polish_surname(word)

    def is_common_given(self, word: str) -> bool:
        return super().is_common_given(word) or (
            polish_given(word) is not None and not self.has_any(NOT_COMMON, word) and not self.is_plain(word)
        )


class MixedLexicon(Lexicon):
    """The lexicons of a text's languages together: a word is ordinary if it is so in any of them."""

    def __init__(self, lexicons: Sequence[Lexicon]) -> None:
        first = lexicons[0]
        super().__init__({"legal_forms": ()}, first._names, frozenset(), first.language)
        self._lexicons = tuple(lexicons)
        self.legal_forms = frozenset[str]().union(*(lexicon.legal_forms for lexicon in lexicons))
        names = {name for lexicon in lexicons for name in lexicon.lists}
        self.lists = {
            name: frozenset[str]().union(*(lexicon.lists.get(name, frozenset()) for lexicon in lexicons))
            for name in names
        }

    @property
    def capitalises_nouns(self) -> bool:
        return any(lexicon.capitalises_nouns for lexicon in self._lexicons)

    def is_plain(self, word: str) -> bool:
        return any(lexicon.is_plain(word) for lexicon in self._lexicons)

    def given(self, word: str) -> Given | None:
        return next(filter(None, (lexicon.given(word) for lexicon in self._lexicons)), None)

    def is_surname(self, word: str) -> bool:
        return any(lexicon.is_surname(word) for lexicon in self._lexicons)


def load_lexicon(dictionary: Container[str], language: str) -> Lexicon:
    """The lexicon of one language. Loading takes a second for the first one, because all share the lists of names."""
    kind = PolishLexicon if language == "pl" else Lexicon
    return kind.load(dictionary, language)


class Lexicons:
    """The lexicons of an installation's languages, loaded when first needed, and mixtures of them. Thread-safe."""

    def __init__(self, load: Callable[[str], Lexicon], first: str) -> None:
        self._load = load
        self._first = first
        self._known: dict[tuple[str, ...], Lexicon] = {}
        self._lock = threading.RLock()

    def of(self, languages: Iterable[str]) -> Lexicon:
        """The words of these languages together; without any, those of the first language."""
        codes = tuple(dict.fromkeys(languages)) or (self._first,)
        with self._lock:
            if codes not in self._known:
                single = len(codes) == 1
                self._known[codes] = (
                    self._load(codes[0]) if single else MixedLexicon([self.of((code,)) for code in codes])
                )
            return self._known[codes]
