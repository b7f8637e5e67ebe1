"""Golden documents (kind `test`): a prompt, its reference and perhaps key insights. They are measured on and never trained on."""

from collections.abc import Mapping
from typing import Any

from services.ingestion.domain import Insights, ParsedText, clean, malformed

INSIGHT_KINDS = ("findings", "figures", "owners", "dates", "recommendations")
MAX_STATEMENTS = 100
MAX_STATEMENT_CHARS = 1000
REQUIRED, OPTIONAL = {"prompt", "reference"}, {"key_insights"}


def is_golden(content: Any) -> bool:
    """True for an object of `prompt`, `reference` and perhaps `key_insights`; a `kind` does not count."""
    names = set(content) - {"kind"} if isinstance(content, dict) else set()
    return names - OPTIONAL == REQUIRED


def to_golden(prompt: Any, reference: Any, key_insights: Any) -> ParsedText:
    """The text of a golden document. Raises Rejected (MALFORMED), naming the field, if a part is not as the schema says."""
    if type(prompt) is not str or type(reference) is not str:
        raise malformed("`prompt` and `reference` of a test must be strings.")
    question = clean(prompt).strip()
    if not question:
        raise malformed("`prompt` of a test must not be empty.")
    insights: Insights = {} if key_insights is None else check_insights(key_insights)
    return ParsedText(clean(reference), "json", question, insights=insights)


def check_insights(content: Any) -> Insights:
    """Statements by kind, each on one line. Raises Rejected (MALFORMED)."""
    if not isinstance(content, Mapping) or set(content) - set(INSIGHT_KINDS):
        raise malformed(f"`key_insights` must be an object of lists of strings: {', '.join(INSIGHT_KINDS)}.")
    insights = {kind: _statements(kind, content[kind]) for kind in INSIGHT_KINDS if kind in content}
    return {kind: statements for kind, statements in insights.items() if statements}


def _statements(kind: str, entries: Any) -> tuple[str, ...]:
    if not isinstance(entries, list | tuple) or not all(type(entry) is str for entry in entries):
        raise malformed(f"`key_insights.{kind}` must be a list of strings.")
    statements = tuple(" ".join(clean(entry).split()) for entry in entries)
    if len(statements) > MAX_STATEMENTS or any(not 0 < len(entry) <= MAX_STATEMENT_CHARS for entry in statements):
        raise malformed(
            f"`key_insights.{kind}` must have at most {MAX_STATEMENTS} statements of 1 to {MAX_STATEMENT_CHARS} characters."
        )
    return statements
