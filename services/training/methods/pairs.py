"""Rows of a preference dataset as token ids: one prompt, a chosen and a rejected answer. Only the answers are learned from."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.training.methods import held_out, row_files
from services.training.methods.base import Plan, plan_steps
from services.training.methods.rows import ChatTokenizer, Encoded, encode
from services.training.recipe import BatchRecipe, Recipe
from tailor.errors import InvalidArgument, Reason
from tailor.logging import get_logger

log = get_logger(__name__)

UNCUT = 1_000_000


@dataclass(frozen=True)
class Pair:
    """One row: the prompt with either answer, each up to and with the token that ends its turn."""

    row_id: str
    chosen: Encoded
    rejected: Encoded

    @property
    def padded(self) -> int:
        """Tokens that the pair takes side by side."""
        return 2 * max(len(self.chosen.tokens), len(self.rejected.tokens))


def read(path: Path, tokenizer: ChatTokenizer) -> list[Pair]:
    """The pairs of a Parquet file. InvalidArgument (INVALID_DATASET, WRONG_DATASET_KIND, INVALID_ROW)."""
    return to_pairs(row_files.read(path, row_files.PAIRS), tokenizer)


def to_pairs(rows: Iterable[dict[str, Any]], tokenizer: ChatTokenizer) -> list[Pair]:
    """Rows as token ids, without those whose two answers are the same: they say nothing. InvalidArgument (INVALID_ROW)."""
    found = [to_pair(row, tokenizer) for row in rows]
    return [pair for pair in found if pair.chosen.tokens != pair.rejected.tokens]


def to_pair(row: dict[str, Any], tokenizer: ChatTokenizer) -> Pair:
    """A row as token ids. InvalidArgument (INVALID_ROW)."""
    row_id, prompt = row["row_id"], row["messages"]
    if not prompt or prompt[-1]["role"] != "user":
        raise InvalidArgument(Reason.INVALID_ROW, f"The prompt of row {row_id} does not end with the user.")
    chosen, rejected = (
        encode(row_id, [*prompt, {"role": "assistant", "content": row[side]}], tokenizer, UNCUT)
        for side in ("chosen", "rejected")
    )
    return Pair(row_id, chosen, rejected)


def fitting(pairs: Sequence[Pair], batch: BatchRecipe) -> list[Pair]:
    """The pairs of which nothing has to be cut: a cut answer would be judged for how it does not end.

    InvalidArgument (NO_ROWS) where there is none.
    """
    kept = [pair for pair in pairs if pair.padded <= min(2 * batch.max_length, batch.tokens)]
    if not kept:
        raise InvalidArgument(
            Reason.NO_ROWS,
            "No pair of two different answers fits; raise batch.max_length, and batch.tokens to twice of that, for both.",
        )
    if len(kept) < len(pairs):
        log.warning("pairs left out because they are too long", pairs=len(pairs) - len(kept))
    return kept


def micro_batch(pairs: Sequence[Pair], batch: BatchRecipe) -> int:
    """Pairs a micro-batch: as many as fit into its tokens, each padded to the longest of all."""
    return max(1, batch.tokens // max(pair.padded for pair in pairs))


def plan(pairs: Sequence[Pair], recipe: Recipe) -> Plan:
    """The steps that the recipe's limits allow on these pairs; at least one."""
    size = micro_batch(pairs, recipe.batch)
    return plan_steps(-(-len(pairs) // size), size * max(pair.padded for pair in pairs), recipe)


def choose_held_out(path: Path | None, tokenizer: ChatTokenizer, batch: BatchRecipe) -> list[Pair]:
    """A few held-out pairs, always the same; none where there is no such file, or nothing in it that fits."""
    pairs = read(path, tokenizer) if path else []
    fits = [pair for pair in pairs if pair.padded <= 2 * batch.max_length]
    return held_out.choose([(pair.row_id, pair.padded, pair) for pair in fits])
