"""Held-out figures, measured on a few rows so that a run stays fast."""

import hashlib
from collections.abc import Sequence
from typing import Any, TypeVar

from services.training.methods.stored_rows import EncodedRows
from tailor.chat import Encoded

MAX_ROWS = 16
MAX_TOKENS = 2048
# A forward pass over this many tokens takes about a hundredth of the demo's training time.
MAX_LOSS_TOKENS = 1024

R = TypeVar("R")


def choose(rows: Sequence[tuple[str, int, R]], max_tokens: int = MAX_TOKENS) -> list[R]:
    """Of (id, length, row) at most 16 rows with `max_tokens` tokens together, in the order of the id's hash: always the same ones.

    If every row is longer than that, the shortest one.
    """
    chosen: list[R] = []
    tokens = 0
    for _, length, row in sorted(rows, key=lambda entry: hashlib.sha256(entry[0].encode()).digest()):
        if tokens + length <= max_tokens and len(chosen) < MAX_ROWS:
            chosen.append(row)
            tokens += length
    return chosen or [row for *_, row in sorted(rows, key=lambda entry: (entry[1], entry[0]))[:1]]


def choose_rows(rows: Sequence[Encoded]) -> list[Encoded]:
    """The same for encoded rows with something to learn."""
    candidates = [(row.row_id, len(row.tokens), row) for row in rows if len(row.tokens) > row.prompt_length]
    return choose(candidates, MAX_LOSS_TOKENS)


def choose_stored(rows: EncodedRows) -> list[Encoded]:
    """The same for stored rows."""
    figures = zip(rows.row_ids.tolist(), rows.lengths.tolist(), rows.prompt_lengths.tolist(), strict=True)
    candidates = [(name.decode(), length, at) for at, (name, length, prompt) in enumerate(figures) if length > prompt]
    return [rows[at] for at in choose(candidates, MAX_LOSS_TOKENS)]


def answer_log_probabilities(model: Any, row: Encoded) -> Any:
    """Log-probability (nats) of each token of the row's answer, (answer tokens,). A plain forward pass of one row, without a cache."""
    import torch

    tokens = torch.tensor([row.tokens], device=next(model.parameters()).device)  # (1, tokens)
    with torch.no_grad():
        positions = len(row.tokens) - row.prompt_length + 1
        logits = model(input_ids=tokens, use_cache=False, logits_to_keep=positions).logits[0, :-1].float()
        return torch.log_softmax(logits, dim=-1).gather(1, tokens[0, row.prompt_length :, None])[:, 0]


def loss(model: Any, rows: Sequence[Encoded]) -> float:
    """Mean cross-entropy (nats per token of the answers) over at least one row. Leaves the model in evaluation mode."""
    model.eval()
    total = sum(float(answer_log_probabilities(model, row).sum()) for row in rows)
    return -total / sum(len(row.tokens) - row.prompt_length for row in rows)
