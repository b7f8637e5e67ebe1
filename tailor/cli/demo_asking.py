"""The demo's questions: the same ones to the base and to the specialist, streamed."""

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import RenderableType

from tailor.cli.ask import side_by_side
from tailor.cli.demo_report import AnswerPair
from tailor.cli.demo_wait import Patience, Tell
from tailor.client import TailorClient
from tailor.errors import InvalidArgument, Reason, TailorError

BASE = "base"
MAX_TOKENS = 120
# As in the evaluation: a small model's greedy answers go in circles without it.
REPETITION_PENALTY = 1.05

Show = Callable[[RenderableType], None]


def read_questions(path: Path) -> list[str]:
    """The questions; InvalidArgument where there are none."""
    try:
        return [str(entry["question"]) for entry in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, KeyError, TypeError):
        raise InvalidArgument(
            Reason.INVALID_QUESTIONS, f"{path} must be a JSON list of objects with a question."
        ) from None


def ask_both(
    client: TailorClient, specialist: str, questions: Sequence[str], tell: Tell, show: Show
) -> list[AnswerPair]:
    """Each question's answers; `show` gets both as they are written."""
    pairs: list[AnswerPair] = []
    for number, question in enumerate(questions, start=1):
        tell(f"question {number} of {len(questions)}")
        texts = {BASE: "", specialist: ""}
        # Both at once: the server writes them in one batch.
        with ThreadPoolExecutor(len(texts)) as pool:
            calls = {name: pool.submit(_answer, client, name, question, texts, tell=tell, show=show) for name in texts}
        pairs.append(AnswerPair(question, texts[BASE], texts[specialist], calls[specialist].result()))
    tell(f"{len(questions)} questions answered by both")
    return pairs


def _answer(client: TailorClient, name: str, question: str, texts: dict[str, str], *, tell: Tell, show: Show) -> str:
    """Stream one answer into `texts`; the draft's id. It is asked again where the stream breaks off."""
    patience = Patience(tell)
    while True:
        texts[name] = ""
        draft_id = ""
        try:
            stream = client.stream(name, question, max_tokens=MAX_TOKENS, repetition_penalty=REPETITION_PENALTY)
            for piece in stream:
                texts[name] += piece.text
                draft_id = piece.draft_id
                show(side_by_side(list(texts.items())))
        except TailorError as error:
            patience.bear(error)
        else:
            return draft_id
