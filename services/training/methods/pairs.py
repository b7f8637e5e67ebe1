"""Rows of a preference dataset as token ids: a prompt with a chosen and a rejected answer. Only the answers are learned."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.training.methods import held_out, row_files
from services.training.methods.base import plan_steps
from services.training.methods.row_files import RowEncoder
from services.training.recipe import BatchRecipe, Recipe
from tailor.chat import ChatTokenizer, Encoded, encode
from tailor.errors import InvalidArgument, Reason
from tailor.logging import get_logger

log = get_logger(__name__)


@dataclass(frozen=True)
class Pair:
    """One row: the prompt with each answer, up to and including the token that ends the turn."""

    row_id: str
    chosen: Encoded
    rejected: Encoded

    @property
    def padded(self) -> int:
        """Number of tokens that the pair takes in a batch, both answers padded to the longer one."""
        return 2 * max(len(self.chosen.tokens), len(self.rejected.tokens))


def read(paths: Sequence[Path], tokenizer: ChatTokenizer) -> tuple[list[Pair], int]:
    """The pairs of Parquet files, and the number of invalid ones that were left out.

    Raises InvalidArgument (INVALID_DATASET, WRONG_DATASET_KIND, INVALID_ROW).
    """
    return to_pairs(row_files.read(paths, row_files.PAIRS), tokenizer)


def to_pairs(rows: Iterable[dict[str, Any]], tokenizer: ChatTokenizer) -> tuple[list[Pair], int]:
    """The same for rows. Those with two equal answers teach nothing and are not among them."""
    encoder = RowEncoder(row_files.PAIRS, lambda row: to_pair(row, tokenizer))
    pairs = [pair for pair in encoder.encode_all(rows) if pair.chosen.tokens != pair.rejected.tokens]
    return pairs, encoder.skipped


def to_pair(row: dict[str, Any], tokenizer: ChatTokenizer) -> Pair:
    """Encode a row. Raises InvalidArgument (INVALID_ROW)."""
    row_id, prompt = row["row_id"], row["messages"]
    if not prompt or prompt[-1]["role"] != "user":
        raise InvalidArgument(
            Reason.INVALID_ROW, f"The prompt of row {row_id} does not end with a message of the user."
        )
    chosen, rejected = (
        encode(row_id, [*prompt, {"role": "assistant", "content": row[side]}], tokenizer)
        for side in ("chosen", "rejected")
    )
    return Pair(row_id, chosen, rejected)


def prompt_digest(pair: Pair) -> str:
    """SHA-256 of the prompt's token ids."""
    return hashlib.sha256(repr(pair.chosen.tokens[: pair.chosen.prompt_length]).encode()).hexdigest()


def draw_prompts(digests: Iterable[str], share: float, seed: int) -> set[str]:
    """A share of these prompts, at least one. Deterministic by seed; most of those drawn are drawn again when others are added."""
    ranked = sorted(set(digests), key=lambda digest: hashlib.sha256(f"{seed} {digest}".encode()).digest())
    return set(ranked[: max(1, round(share * len(ranked)))])


def keep_fitting(pairs: Sequence[Pair], batch: BatchRecipe, context: int) -> list[Pair]:
    """The pairs that fit uncut, because a cut answer would be judged by its missing end. Raises InvalidArgument (NO_ROWS) if none fits.

    Without `max_length` every pair fits whose longer answer, with its prompt, has at most `context` tokens.
    """
    kept = [pair for pair in pairs if pair.padded <= _max_padded(batch, context)]
    if not kept:
        raise InvalidArgument(
            Reason.NO_ROWS,
            "No pair of two different answers fits. Raise batch.max_length, and batch.tokens to at least twice that.",
        )
    if len(kept) < len(pairs):
        log.warning("pairs left out: too long", pairs=len(pairs) - len(kept))
    return kept


def _max_padded(batch: BatchRecipe, context: int) -> int:
    return min(2 * batch.max_length, batch.tokens) if batch.max_length else 2 * context


def pairs_per_batch(pairs: Sequence[Pair], batch: BatchRecipe) -> int:
    """The number of pairs that fit into a micro-batch, each padded to the longest of all; at least 1."""
    return max(1, batch.tokens // max(pair.padded for pair in pairs))


def count_steps(pairs: Sequence[Pair], recipe: Recipe) -> int:
    """The number of steps within the recipe's limits on these pairs; at least 1."""
    size = pairs_per_batch(pairs, recipe.batch)
    return plan_steps(-(-len(pairs) // size), size * max(pair.padded for pair in pairs), recipe)


def choose_held_out(paths: Sequence[Path], tokenizer: ChatTokenizer, max_length: int) -> list[Pair]:
    """A few held-out pairs, always the same ones; empty if the dataset has none that fit."""
    every, _ = read(paths, tokenizer)
    fitting = [pair for pair in every if pair.padded <= 2 * max_length]
    return held_out.choose([(pair.row_id, pair.padded, pair) for pair in fitting])
