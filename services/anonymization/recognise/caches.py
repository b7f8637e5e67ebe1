"""The caches of a process that hold words of the texts that it read last, apart from those of analyzers."""

import re

from services.anonymization.recognise.languages.dictionaries import forget_words
from services.anonymization.recognise.lexicon import fold
from services.anonymization.recognise.tokens import tokenise


def clear_caches() -> None:
    """Remove what Python and the lexicon have cached of the texts they saw last."""
    tokenise.cache_clear()
    fold.cache_clear()
    forget_words()
    re.purge()
