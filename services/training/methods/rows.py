"""Rows of a dataset as token ids, packed whole into steps. Only the assistant's last words are learned."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from services.training.methods import row_files
from tailor.chat import defused
from tailor.errors import InvalidArgument, Reason

IGNORED = -100  # the label that no loss is computed for


class ChatTokenizer(Protocol):
    """What is needed of a transformers tokenizer."""

    eos_token_id: int | None
    added_tokens_decoder: Mapping[int, Any]

    def apply_chat_template(self, conversation: Any, **options: Any) -> Any:
        """Token ids of a conversation."""
        ...


@dataclass(frozen=True)
class Encoded:
    """One row: its tokens, and how many of them belong to the prompt."""

    row_id: str
    tokens: tuple[int, ...]
    prompt_length: int


def render(
    row_id: str, messages: Sequence[Mapping[str, str]], tokenizer: ChatTokenizer, *, answered: bool
) -> list[int]:
    """A conversation through the base's own chat template, up to where the answer begins where it is not answered yet.

    InvalidArgument (INVALID_ROW) where the template refuses it.
    """
    from jinja2 import TemplateError

    options = {} if answered else {"add_generation_prompt": True}
    turns = [{**message, "content": defused(message["content"], tokenizer)} for message in messages]
    try:
        return list(tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False, **options))
    except TemplateError:
        roles = ", ".join(message["role"] for message in messages)
        raise InvalidArgument(
            Reason.INVALID_ROW,
            f"The base's chat template refuses row {row_id}, a conversation of {roles}; choose another base.",
        ) from None


def encode(row_id: str, messages: Sequence[Mapping[str, str]], tokenizer: ChatTokenizer, max_length: int) -> Encoded:
    """A row through the base's own chat template, the one that serves, up to and with the token that ends the turn.

    InvalidArgument (INVALID_ROW) where the last message is not the assistant's or the template rewrites the prompt.
    """
    if len(messages) < 2 or messages[-1]["role"] != "assistant":
        raise InvalidArgument(Reason.INVALID_ROW, f"Row {row_id} does not end with the assistant's answer.")
    prompt = render(row_id, messages[:-1], tokenizer, answered=False)
    whole = render(row_id, messages, tokenizer, answered=True)
    if whole[: len(prompt)] != prompt:
        raise InvalidArgument(
            Reason.INVALID_ROW, f"The chat template renders the prompt of row {row_id} otherwise once it is answered."
        )
    return Encoded(row_id, tuple(_to_end_of_turn(whole, len(prompt), tokenizer.eos_token_id)[:max_length]), len(prompt))


def read_encoded(path: Path, tokenizer: ChatTokenizer, max_length: int) -> list[Encoded]:
    """The rows of a Parquet file as token ids. InvalidArgument (INVALID_DATASET, WRONG_DATASET_KIND, INVALID_ROW)."""
    found = row_files.read(path, row_files.CHATS)
    return [encode(row["row_id"], row["messages"], tokenizer, max_length) for row in found]


def _to_end_of_turn(tokens: list[int], start: int, end_token: int | None) -> list[int]:
    # Templates put a line break after the turn; generation stops before it, so it is not learned.
    for index in range(len(tokens) - 1, start, -1):
        if tokens[index] == end_token:
            return tokens[: index + 1]
    return tokens


def trainable(rows: Sequence[Encoded]) -> list[Encoded]:
    """The rows of which something is left to learn; InvalidArgument (NO_ROWS) where there is none."""
    kept = [row for row in rows if len(row.tokens) > row.prompt_length]
    if not kept:
        raise InvalidArgument(
            Reason.NO_ROWS, "No row has words of the assistant within max_length tokens; raise batch.max_length."
        )
    return kept


def pack(rows: Sequence[Encoded], capacity: int, seed: int) -> list[list[Encoded]]:
    """Whole rows in bins of at most `capacity` tokens: the longest first, each into the fullest bin that takes it."""
    shuffled = sorted(rows, key=lambda row: row.row_id)
    random.Random(seed).shuffle(shuffled)  # noqa: S311 - an order, not a secret
    bins: list[list[Encoded]] = []
    room: list[int] = []
    for row in sorted(shuffled, key=lambda row: -len(row.tokens)):
        fitting = [index for index, free in enumerate(room) if free >= len(row.tokens)]
        if not fitting:
            bins.append([])
            room.append(capacity)
            fitting = [len(bins) - 1]
        target = min(fitting, key=lambda index: room[index])
        bins[target].append(row)
        room[target] -= len(row.tokens)
    return bins


def even(bins: Sequence[Sequence[Encoded]], multiple: int) -> list[Sequence[Encoded]]:
    """The bins, filled up to a multiple by bins of one token that is not learned, so that every step of an epoch is whole."""
    filler = Encoded("", bins[0][0].tokens[:1], 1)
    return [*bins, *([filler] for _ in range(-len(bins) % multiple))]


def to_columns(bins: Sequence[Sequence[Encoded]]) -> dict[str, list[list[int]]]:
    """Bins as the columns that trl's padding-free collator takes."""
    return {
        "input_ids": [[token for row in rows for token in row.tokens] for rows in bins],
        "labels": [[label for row in rows for label in _labels(row)] for rows in bins],
        "seq_lengths": [[len(row.tokens) for row in rows] for rows in bins],
    }


def _labels(row: Encoded) -> list[int]:
    return [IGNORED] * row.prompt_length + list(row.tokens[row.prompt_length :])
