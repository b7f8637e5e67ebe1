"""The language of a text, by py3langid: pure Python with a small built-in model, about half a millisecond per page."""

from py3langid.langid import MODEL_FILE, LanguageIdentifier

UNDETERMINED = "und"
MIN_CONFIDENCE = 0.5
CODE_LENGTH = 2
# The beginning of a text is as telling as the whole.
MAX_CHARS = 20_000


class LanguageDetector:
    """Call it with a text. Thread-safe; loading the model takes a second."""

    def __init__(self) -> None:
        self._identifier = LanguageIdentifier.from_model_file(
            MODEL_FILE, norm_probs=True, min_confidence=MIN_CONFIDENCE
        )

    def __call__(self, text: str) -> str:
        """The two-letter code (ISO 639-1) of the text's language; empty if it is uncertain."""
        code, _ = self._identifier.classify(text[:MAX_CHARS])
        return str(code) if code != UNDETERMINED and len(code) == CODE_LENGTH else ""
