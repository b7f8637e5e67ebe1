"""The work of a stage, counted on its rows: encoded and packed as in training, without a model.

Of a large dataset at most `READ_ROWS` rows, spread over all of it, are encoded, and the counts are scaled. Only one batch of rows is in
memory at a time.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from services.training.methods import pairs, row_files
from services.training.methods.answers import prompt_encoder
from services.training.methods.base import plan_steps
from services.training.methods.pairs import Pair
from services.training.methods.rows import chat_encoder, keep_fitting, pack
from services.training.planning.forecast import Load
from services.training.recipe import FROM_PREFERENCES, GENERATING, Recipe
from tailor.chat import ChatTokenizer, Encoded
from tailor.errors import InvalidArgument, Reason

READ_ROWS = 2048


@dataclass(frozen=True)
class Lengths:
    """The lengths of the rows that were read: of chats, of pairs, or of the distinct prompts among them.

    `rows` is the size of the dataset; each row that was read stands for `scale` rows. `context` is the longest sequence that the base
    reads, `longest` the longest row by the dataset's own figures, or 0. A pair's id is the digest of its prompt. `skipped` counts the rows
    that were read and are invalid.
    """

    rows: int
    scale: float
    context: int
    longest: int = 0
    chats: Sequence[Encoded] = ()
    pairs: Sequence[Pair] = ()
    prompts: Sequence[int] = ()
    skipped: int = 0

    @property
    def tokens(self) -> int:
        """The tokens of all rows; 0 for prompts."""
        pairs_tokens = sum(len(pair.chosen.tokens) + len(pair.rejected.tokens) for pair in self.pairs)
        return round(self.scale * (sum(len(row.tokens) for row in self.chats) + pairs_tokens))


def read_lengths(paths: Sequence[Path], method: str, tokenizer: ChatTokenizer, context: int) -> Lengths:
    """The lengths of the Parquet files' rows.

    Raises InvalidArgument (INVALID_DATASET, WRONG_DATASET_KIND, INVALID_ROW, NO_ROWS).
    """
    columns = row_files.PAIRS if method in ("dpo", "reward") else row_files.CHATS
    rows = row_files.count_rows(paths, columns)
    if not rows:
        raise InvalidArgument(Reason.NO_ROWS, "The dataset has no rows to train on.")
    read = list(_draw_rows(paths, columns, -(-rows // READ_ROWS)))
    scale = rows / len(read)
    if method in GENERATING:
        asker = prompt_encoder(tokenizer)
        prompts = {prompt.tokens for prompt in asker.encode_all(read)}
        return Lengths(rows, scale, context, prompts=[len(prompt) for prompt in prompts], skipped=asker.skipped)
    if method in FROM_PREFERENCES:
        drawn, skipped = pairs.to_pairs(read, tokenizer)
        return Lengths(rows, scale, context, pairs=[_blank_pair(pair) for pair in drawn], skipped=skipped)
    encoder = chat_encoder(tokenizer)
    chats = [_blank(row) for row in encoder.encode_all(read)]
    # Rows that were not read may be longer.
    longest = row_files.find_longest(paths) if len(read) < rows else 0
    return Lengths(rows, scale, context, longest, chats=chats, skipped=encoder.skipped)


def _draw_rows(paths: Sequence[Path], columns: Sequence[str], every: int) -> Iterator[dict[str, Any]]:
    """One row out of every `every`, drawn with a fixed seed, because rows may follow a pattern."""
    draw = random.Random(0)  # noqa: S311 - a sample, not a secret
    wanted, number = draw.randrange(every), 0
    for batch in _read_batches(paths, columns):
        while wanted < number + batch.num_rows:
            yield batch.slice(wanted - number, 1).to_pylist()[0]
            wanted += every - wanted % every + draw.randrange(every)
        number += batch.num_rows


def _read_batches(paths: Sequence[Path], columns: Sequence[str]) -> Iterator[Any]:
    for path in paths:
        with row_files.open_rows(path, columns) as file:
            yield from file.iter_batches(row_files.BATCH_ROWS, columns=row_files.add_documents(file, columns))


def _blank(row: Encoded) -> Encoded:
    # Only the number of tokens matters from here on.
    return replace(row, tokens=(0,) * len(row.tokens))


def _blank_pair(pair: Pair) -> Pair:
    # A held-out reward model learns from some of the prompts.
    return Pair(pairs.prompt_digest(pair), _blank(pair.chosen), _blank(pair.rejected))


def count(lengths: Lengths, recipe: Recipe) -> Load:
    """The work of the recipe on the rows. Raises InvalidArgument (NO_ROWS) if no row is left."""
    if recipe.method in GENERATING:
        return _count_rollouts(lengths, recipe)
    load = _count_pairs(lengths, recipe) if recipe.method in FROM_PREFERENCES else _count_chats(lengths, recipe)
    if recipe.sweep is None:
        return load
    # Each rate is tried on a share of the steps before the best one is trained in full.
    trials = len(recipe.sweep.factors) * max(1, round(recipe.sweep.share * load.steps))
    more = 1 + trials / load.steps
    return replace(
        load, steps=load.steps + trials, trained=round(load.trained * more), unlimited=round(load.unlimited * more)
    )


def _count_chats(lengths: Lengths, recipe: Recipe) -> Load:
    limit = recipe.batch.max_length or lengths.context
    kept = keep_fitting(lengths.chats, limit)
    bins = pack(kept, recipe.batch.tokens, recipe.seed)
    sizes = [sum(len(row.tokens) for row in packed) for packed in bins]
    learned = [sum(row.learned for row in packed) for packed in bins]
    largest = max([*sizes, min(lengths.longest, limit)])
    steps = plan_steps(max(1, round(len(bins) * lengths.scale)), largest, recipe)
    return Load(
        rows=round(len(kept) * lengths.scale),
        skipped=round((lengths.skipped + len(lengths.chats) - len(kept)) * lengths.scale),
        steps=steps,
        tokens=largest,
        learned=round(max(learned) * largest / max(sizes)),
        trained=round(steps * recipe.batch.accumulation * sum(sizes) / len(sizes)),
        unlimited=round(recipe.limit.epochs * sum(sizes) * lengths.scale),
    )


def _count_pairs(lengths: Lengths, recipe: Recipe) -> Load:
    drawn = lengths.pairs
    if recipe.held_out_reward is not None:
        prompts = pairs.draw_prompts((pair.row_id for pair in drawn), recipe.held_out_reward.share, recipe.seed)
        drawn = [pair for pair in drawn if pair.row_id in prompts]
    kept = pairs.keep_fitting(drawn, recipe.batch, lengths.context)
    size, longest = pairs.pairs_per_batch(kept, recipe.batch), max(pair.padded for pair in kept)
    steps = plan_steps(-(-round(len(kept) * lengths.scale) // size), size * longest, recipe)
    mean = sum(len(pair.chosen.tokens) + len(pair.rejected.tokens) for pair in kept) / len(kept)
    return Load(
        rows=round(len(kept) * lengths.scale),
        skipped=round((lengths.skipped + len(drawn) - len(kept)) * lengths.scale),
        steps=steps,
        tokens=size * longest,
        # A reward is one number per answer; for the other methods trl computes logits for every token of a pair, prompt included.
        learned=0 if recipe.method == "reward" else size * longest,
        trained=round(steps * recipe.batch.accumulation * size * mean),
    )


def _count_rollouts(lengths: Lengths, recipe: Recipe) -> Load:
    """Answers count with their maximum length, because nobody knows how long they will be. A step is split by `accumulation`."""
    rollout, parts = recipe.rollout, recipe.batch.accumulation
    limit = recipe.batch.max_length or lengths.context
    prompts = [length for length in lengths.prompts if length + rollout.max_new_tokens <= limit]
    if not prompts:
        raise InvalidArgument(
            Reason.NO_ROWS,
            "No prompt leaves room for an answer. Raise batch.max_length or lower rollout.max_new_tokens.",
        )
    distinct, answers = round(len(prompts) * lengths.scale), rollout.prompts * rollout.answers
    longest = max(prompts) + rollout.max_new_tokens
    passes = -(-distinct // rollout.prompts)
    steps = plan_steps(passes * parts, answers * longest // parts, recipe)
    return Load(
        rows=distinct,
        skipped=round((lengths.skipped + len(lengths.prompts) - len(prompts)) * lengths.scale),
        steps=steps,
        tokens=-(-answers // parts) * longest,
        learned=-(-answers // parts) * rollout.max_new_tokens,
        trained=round(steps * answers * (sum(prompts) / len(prompts) + rollout.max_new_tokens)),
        written=steps * answers * rollout.max_new_tokens,
        cached=answers * longest,
    )
