"""Held-out figures, measured on a few rows so that a run stays quick."""

import hashlib
from collections.abc import Sequence
from typing import Any, TypeVar

from services.training.methods.rows import Encoded

MAX_ROWS = 16
MAX_TOKENS = 2048
# A forward of them is about a hundredth of the demo's training.
MAX_LOSS_TOKENS = 1024

R = TypeVar("R")


def choose(rows: Sequence[tuple[str, int, R]], max_tokens: int = MAX_TOKENS) -> list[R]:
    """Of rows with id and length, at most 16 with so many tokens together, in the order of a hash of the id: always the same."""
    chosen: list[R] = []
    tokens = 0
    for _, length, row in sorted(rows, key=lambda entry: hashlib.sha256(entry[0].encode()).digest()):
        if tokens + length <= max_tokens and len(chosen) < MAX_ROWS:
            chosen.append(row)
            tokens += length
    return chosen


def choose_rows(rows: Sequence[Encoded]) -> list[Encoded]:
    """The same for encoded rows, those that have something to learn."""
    kept = [(row.row_id, len(row.tokens), row) for row in rows if len(row.tokens) > row.prompt_length]
    return choose(kept, MAX_LOSS_TOKENS)


def answer_log_probabilities(model: Any, row: Encoded) -> Any:
    """The log-probability (nats) of each token of the row's answer, by a plain forward of one row."""
    import torch

    tokens = torch.tensor([row.tokens], device=next(model.parameters()).device)
    with torch.no_grad():
        kept = len(row.tokens) - row.prompt_length + 1
        logits = model(input_ids=tokens, use_cache=False, logits_to_keep=kept).logits[0, :-1].float()
        return torch.log_softmax(logits, dim=-1).gather(1, tokens[0, row.prompt_length :, None])[:, 0]


def loss(model: Any, rows: Sequence[Encoded]) -> float:
    """Mean cross-entropy (nats an answer's token) over the rows; there is at least one. Leaves the model in evaluation mode."""
    model.eval()
    total = sum(float(answer_log_probabilities(model, row).sum()) for row in rows)
    return -total / sum(len(row.tokens) - row.prompt_length for row in rows)
