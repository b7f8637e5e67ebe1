"""Key insights of a text: given as JSON, or extracted by the judge model."""

import json
from collections.abc import Mapping

from services.evaluation.judge.prompts import KINDS, insights_request
from services.evaluation.ports import JudgeModel

MAX_TOKENS = 2000
Insights = Mapping[str, tuple[str, ...]]


def parse_insights(key_insights: str) -> Insights | None:
    """The insights of a golden row; None if it has none."""
    return _to_insights(json.loads(key_insights)) if key_insights else None


def extract_insights(judge: JudgeModel, text: str) -> Insights | None:
    """The insights that the judge model finds in a text; None if it gave no list. Blocks."""
    messages, schema = insights_request(text)
    content = judge.ask(messages, schema, MAX_TOKENS)
    return None if content is None else _to_insights(content)


def _to_insights(content: Mapping[str, object]) -> Insights:
    return {kind: _statements(content.get(kind)) for kind in KINDS}


def _statements(entries: object) -> tuple[str, ...]:
    if not isinstance(entries, list):
        return ()
    texts = (" ".join(str(entry).split()) for entry in entries)
    return tuple(dict.fromkeys(text for text in texts if text))
