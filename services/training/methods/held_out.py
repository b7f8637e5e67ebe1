"""Held-out figures, measured on rows that cost little compared with training."""

import hashlib
from collections.abc import Sequence
from typing import Any, TypeVar

from services.training.methods.stored_rows import EncodedRows
from services.training.recipe import MEASURING_SHARE
from tailor.chat import Encoded

MAX_ROWS = 16
MAX_TOKENS = 2048
# Tokens of the rows by which checkpoints are compared, and the fewest, for runs that are too short for them.
LOSS_TOKENS, MIN_TOKENS = 20_000, 1024
# A token costs as much as half of its training with LoRA.
COST = 1 / 2
MAX_MEASUREMENTS = 10

R = TypeVar("R")


def choose(rows: Sequence[tuple[str, int, R]]) -> list[R]:
    """Of (id, length, row) at most MAX_ROWS with MAX_TOKENS tokens together, in the order of the id's hash: always the same ones.

    If every row is longer than that, the shortest one.
    """
    chosen: list[R] = []
    tokens = 0
    for _, length, row in _by_hash(rows):
        if tokens + length <= MAX_TOKENS and len(chosen) < MAX_ROWS:
            chosen.append(row)
            tokens += length
    return chosen or [row for *_, row in sorted(rows, key=lambda entry: (entry[1], entry[0]))[:1]]


def _by_hash(rows: Sequence[tuple[str, int, R]]) -> list[tuple[str, int, R]]:
    return sorted(rows, key=lambda entry: hashlib.sha256(entry[0].encode()).digest())


def choose_stored(rows: EncodedRows, max_tokens: int = LOSS_TOKENS) -> list[Encoded]:
    """As many stored rows with something to learn as have `max_tokens` tokens together, always the same ones; all if they have fewer."""
    figures = zip(rows.row_ids.tolist(), rows.lengths.tolist(), rows.prompt_lengths.tolist(), strict=True)
    candidates = [(name.decode(), length, at) for at, (name, length, prompt) in enumerate(figures) if length > prompt]
    chosen, tokens = [], 0
    for _, length, at in _by_hash(candidates):
        if tokens < max_tokens:
            chosen.append(rows[at])
            tokens += length
    return chosen


def count_affordable(trained_tokens: int) -> int:
    """The number of held-out tokens that a run may measure."""
    return int(MEASURING_SHARE * trained_tokens / COST)


def plan_measurements(steps: int, trained_tokens: int, rows: Sequence[Encoded]) -> int:
    """The steps from one measurement of the rows' loss to the next; 0 if training is too short for more than the one at its end."""
    tokens = sum(len(row.tokens) for row in rows)
    times = min(MAX_MEASUREMENTS, count_affordable(trained_tokens) // tokens if tokens else 0, steps)
    return -(-steps // times) if times > 1 else 0


def answer_log_probabilities(model: Any, row: Encoded) -> Any:
    """Log-probability (nats) of each token of the row's answer, (answer tokens,). A plain forward pass of one row, without a cache."""
    import torch

    tokens = torch.tensor([row.tokens], device=next(model.parameters()).device)  # (1, tokens)
    with torch.no_grad():
        positions = len(row.tokens) - row.prompt_length + 1
        logits = model(input_ids=tokens, use_cache=False, logits_to_keep=positions).logits[0, :-1].float()
        return torch.log_softmax(logits, dim=-1).gather(1, tokens[0, row.prompt_length :, None])[:, 0]


def packed_log_probabilities(model: Any, rows: Sequence[Encoded]) -> list[Any]:
    """The same of each row, computed in one pass over all rows as training packs them."""
    import torch

    device = next(model.parameters()).device
    tokens = torch.tensor([[token for row in rows for token in row.tokens]], device=device)  # (1, tokens)
    positions = torch.cat([torch.arange(len(row.tokens)) for row in rows])[None].to(device)
    # (tokens of all answers,)
    learned = torch.cat([torch.arange(len(row.tokens)) >= row.prompt_length for row in rows]).nonzero()[:, 0].to(device)
    with torch.no_grad():
        logits = model(input_ids=tokens, position_ids=positions, use_cache=False, logits_to_keep=learned - 1).logits[0]
        chosen = torch.log_softmax(logits.float(), dim=-1).gather(1, tokens[0, learned, None])[:, 0]
    return list(chosen.split([len(row.tokens) - row.prompt_length for row in rows]))


def loss(model: Any, rows: Sequence[Encoded]) -> float:
    """Mean cross-entropy (nats per token of the answers) over at least one row. Leaves the model in evaluation mode."""
    model.eval()
    total = sum(float(answer_log_probabilities(model, row).sum()) for row in rows)
    return -total / sum(len(row.tokens) - row.prompt_length for row in rows)
