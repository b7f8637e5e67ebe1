"""What a stage does, counted on its rows: encoded, cut and packed as they are trained on, without a model.

Of a large dataset at most `READ_ROWS` rows are encoded, spread over all of it, and the counts are scaled; one batch of rows is in memory at
a time.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from services.training.methods import pairs, row_files
from services.training.methods.answers import prompt_tokens
from services.training.methods.base import plan_steps
from services.training.methods.pairs import Pair
from services.training.methods.rows import ChatTokenizer, Encoded, encode, pack, trainable
from services.training.planning.forecast import Load
from services.training.recipe import FROM_PREFERENCES, GENERATING, Recipe
from tailor.errors import InvalidArgument, Reason

READ_ROWS = 2048


@dataclass(frozen=True)
class Lengths:
    """The rows that were read, as lengths: chats, pairs, or the distinct prompts among them. `rows` is how many the dataset
    has, `scale` how many of them each that was read stands for."""

    rows: int
    scale: float
    chats: Sequence[Encoded] = ()
    pairs: Sequence[Pair] = ()
    prompts: Sequence[int] = ()


def read_lengths(path: Path, method: str, tokenizer: ChatTokenizer, context: int) -> Lengths:
    """The lengths of a Parquet file's rows; of a chat what the base can read of it.

    InvalidArgument (INVALID_DATASET, WRONG_DATASET_KIND, INVALID_ROW, NO_ROWS).
    """
    columns = row_files.PAIRS if method in ("dpo", "reward") else row_files.CHATS
    with row_files.opened(path, columns) as file:
        rows = file.metadata.num_rows
        if not rows:
            raise InvalidArgument(Reason.NO_ROWS, "The dataset has no rows to train on.")
        found = [row_files.checked(row, columns) for row in _spread(file, columns, -(-rows // READ_ROWS))]
    scale = rows / len(found)
    if method in GENERATING:
        prompts = {prompt_tokens(row["row_id"], row["messages"], tokenizer) for row in found}
        return Lengths(rows, scale, prompts=[len(prompt) for prompt in prompts])
    if method in FROM_PREFERENCES:
        return Lengths(rows, scale, pairs=[_pair_length(pair) for pair in pairs.to_pairs(found, tokenizer)])
    return Lengths(
        rows, scale, chats=[_length(encode(row["row_id"], row["messages"], tokenizer, context)) for row in found]
    )


def _spread(file: Any, columns: Sequence[str], every: int) -> Iterator[dict[str, Any]]:
    """One row of each so many, drawn by a fixed seed: rows may repeat in a rhythm."""
    draw = random.Random(0)  # noqa: S311 - a sample, not a secret
    wanted, number = draw.randrange(every), 0
    for batch in file.iter_batches(row_files.BATCH_ROWS, columns=list(columns)):
        while wanted < number + batch.num_rows:
            yield batch.slice(wanted - number, 1).to_pylist()[0]
            wanted += every - wanted % every + draw.randrange(every)
        number += batch.num_rows


def _length(row: Encoded) -> Encoded:
    # Only the number of tokens matters from here on.
    return replace(row, tokens=(0,) * len(row.tokens))


def _pair_length(pair: Pair) -> Pair:
    return replace(pair, chosen=_length(pair.chosen), rejected=_length(pair.rejected))


def count(lengths: Lengths, recipe: Recipe) -> Load:
    """What the recipe does with the rows. InvalidArgument (NO_ROWS) where nothing is left of them."""
    if recipe.method in GENERATING:
        return _written(lengths, recipe)
    load = _paired(lengths, recipe) if recipe.method in FROM_PREFERENCES else _packed(lengths, recipe)
    if recipe.sweep is None:
        return load
    # Each rate is tried on a share of the steps, before the best is trained in full.
    trials = len(recipe.sweep.learning_rates) * max(1, round(recipe.sweep.share * load.steps))
    return replace(load, steps=load.steps + trials, trained=round(load.trained * (1 + trials / load.steps)))


def _packed(lengths: Lengths, recipe: Recipe) -> Load:
    cut = [replace(row, tokens=row.tokens[: recipe.batch.max_length]) for row in lengths.chats]
    kept = trainable(cut)
    bins = pack(kept, recipe.batch.tokens, recipe.seed)
    sizes = [sum(len(row.tokens) for row in packed) for packed in bins]
    learned = [sum(len(row.tokens) - row.prompt_length for row in packed) for packed in bins]
    steps = plan_steps(max(1, round(len(bins) * lengths.scale)), max(sizes), recipe).steps
    return Load(
        rows=round(len(kept) * lengths.scale),
        steps=steps,
        tokens=max(sizes),
        learned=max(learned),
        trained=round(steps * recipe.batch.accumulation * sum(sizes) / len(sizes)),
    )


def _paired(lengths: Lengths, recipe: Recipe) -> Load:
    kept = pairs.fitting(lengths.pairs, recipe.batch)
    size, longest = pairs.micro_batch(kept, recipe.batch), max(pair.padded for pair in kept)
    steps = plan_steps(-(-round(len(kept) * lengths.scale) // size), size * longest, recipe).steps
    whole = sum(len(pair.chosen.tokens) + len(pair.rejected.tokens) for pair in kept) / len(kept)
    return Load(
        rows=round(len(kept) * lengths.scale),
        steps=steps,
        tokens=size * longest,
        # A reward is one number an answer; trl scores every word of a pair for the other methods, the prompt's too.
        learned=0 if recipe.method == "reward" else size * longest,
        trained=round(steps * recipe.batch.accumulation * size * whole),
    )


def _written(lengths: Lengths, recipe: Recipe) -> Load:
    """Answers count as long as they may be: what the model will write nobody knows. A step is split by `accumulation`."""
    rollout, parts = recipe.rollout, recipe.batch.accumulation
    prompts = [length for length in lengths.prompts if length + rollout.max_new_tokens <= recipe.batch.max_length]
    if not prompts:
        raise InvalidArgument(
            Reason.NO_ROWS,
            "No prompt leaves room for an answer; raise batch.max_length or lower rollout.max_new_tokens.",
        )
    distinct, answers = round(len(prompts) * lengths.scale), rollout.prompts * rollout.answers
    longest = max(prompts) + rollout.max_new_tokens
    passes = -(-distinct // rollout.prompts)
    steps = plan_steps(passes * parts, answers * longest // parts, recipe).steps
    return Load(
        rows=distinct,
        steps=steps,
        tokens=-(-answers // parts) * longest,
        learned=-(-answers // parts) * rollout.max_new_tokens,
        trained=round(steps * answers * (sum(prompts) / len(prompts) + rollout.max_new_tokens)),
        written=steps * answers * rollout.max_new_tokens,
        cached=answers * longest,
    )
