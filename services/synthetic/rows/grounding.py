"""Whether a prompt supports an answer: the figures, dates, amounts, codes, citations and names of the answer occur in the prompt."""

from functools import lru_cache

from services.synthetic.rows.facts import find_values, stands_in
from services.synthetic.rows.sentences import find_sentences
from services.synthetic.rows.structure import normalize
from services.synthetic.rows.templates import base_language

# The rows of a document repeat its sentences.
MAX_CACHED_SENTENCES = 8_192


def unsupported(answer: str, prompt: str, language: str = "") -> list[str]:
    """Values and names of the answer that the prompt does not have, in order, each once.

    Numbers are compared as they are written, without the signs and units around them; names word for word. White space does not count.
    """
    # A line or sentence that the prompt contains has nothing that the prompt lacks.
    lines = [line for line in answer.split("\n") if line and not stands_in(line, prompt)]
    if not lines:
        return []
    known, language = normalize(prompt), base_language(language)
    plain = (line for line in map(normalize, lines) if line and not stands_in(line, known))
    other = (text for line in plain for text in _sentences(line, language) if not stands_in(text, known))
    values = dict.fromkeys(value for text in other for value in _values(text, language))
    return [value for value in values if not stands_in(value, known)]


@lru_cache(MAX_CACHED_SENTENCES)
def _sentences(line: str, language: str) -> tuple[str, ...]:
    return tuple(line[start:end] for start, end in find_sentences(line, 0, len(line), language))


@lru_cache(MAX_CACHED_SENTENCES)
def _values(sentence: str, language: str) -> tuple[str, ...]:
    return tuple(find_values(sentence, language))
