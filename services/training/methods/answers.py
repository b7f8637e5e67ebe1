"""Prompts of preference rows, and what a model answers to them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from services.training.methods import row_files
from services.training.methods.rows import render
from services.training.recipe import RolloutRecipe
from tailor.errors import InvalidArgument, Reason

BATCH = 16
FORWARD_BATCH = 4  # beside the logits of twice as many answers, over the whole vocabulary

T = TypeVar("T")


@dataclass(frozen=True)
class Prompt:
    """A conversation that waits for the assistant, and its tokens up to where the answer begins."""

    row_id: str
    messages: tuple[dict[str, str], ...]
    tokens: tuple[int, ...]


def read_prompts(path: Path, tokenizer: Any, max_length: int) -> tuple[list[Prompt], int]:
    """The distinct prompts of a Parquet file that are of at most so many tokens, in its order, and how many are longer.

    InvalidArgument (INVALID_DATASET, WRONG_DATASET_KIND), and (INVALID_ROW) where a prompt does not end with words of the user.
    """
    kept: dict[tuple[int, ...], Prompt] = {}
    longer: set[tuple[int, ...]] = set()
    for row in row_files.read(path, row_files.CHATS):
        row_id, messages = row["row_id"], row["messages"]
        tokens = prompt_tokens(row_id, messages, tokenizer)
        if len(tokens) > max_length:
            longer.add(tokens)
        else:
            kept.setdefault(tokens, Prompt(row_id, tuple(messages), tokens))
    return list(kept.values()), len(longer)


def prompt_tokens(row_id: str, messages: Sequence[dict[str, str]], tokenizer: Any) -> tuple[int, ...]:
    """A prompt up to where its answer begins. InvalidArgument (INVALID_ROW) where it does not end with words of the user."""
    if not messages or messages[-1]["role"] != "user" or not messages[-1]["content"].strip():
        raise InvalidArgument(Reason.INVALID_ROW, f"The prompt of row {row_id} does not end with words of the user.")
    return tuple(render(row_id, messages, tokenizer, answered=False))


def end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """The tokens that end an answer: the tokenizer's, and those that the model declares."""
    declared = model.generation_config.eos_token_id
    return sorted({tokenizer.eos_token_id, *(declared if isinstance(declared, list) else [declared])} - {None})


def without_packing(model: Any) -> Any:
    """The model with attention that can generate: packed rows' attention knows no cache and no padding."""
    model.get_base_model().set_attn_implementation("sdpa")
    return model


def sample(model: Any, tokenizer: Any, prompts: Sequence[Prompt], rollout: RolloutRecipe, seed: int) -> list[list[int]]:
    """One answer to each prompt as the recipe's rollouts draw them, with the token that ends it; the same seed draws the same."""
    import torch
    from transformers import set_seed

    set_seed(seed)
    model.eval()
    ends = end_tokens(model, tokenizer)
    answers = []
    with torch.no_grad():
        for batch in _batches(prompts, BATCH):
            inputs = _padded([list(prompt.tokens) for prompt in batch], tokenizer.pad_token_id, model.device, left=True)
            written = model.generate(
                **inputs,
                do_sample=True,
                temperature=rollout.temperature,
                top_p=rollout.top_p,
                top_k=0,
                max_new_tokens=rollout.max_new_tokens,
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=ends,
            )
            answers += [_to_end(tokens.tolist(), ends) for tokens in written[:, inputs["input_ids"].shape[1] :]]
    return answers


def divergence(
    model: Any, tokenizer: Any, asked: Sequence[Prompt], answers: Sequence[Sequence[int]], reference: str
) -> float:
    """How far the active adapter is from the adapter `reference` over these answers: the mean Kullback-Leibler divergence of the
    distributions that the answers' tokens were drawn from, in nats a token."""
    import torch
    from trl.trainer.utils import use_adapter

    model.eval()
    found = []
    with torch.no_grad():
        for batch in _batches(list(zip(asked, answers, strict=True)), FORWARD_BATCH):
            ours = _distributions(model, tokenizer, batch)
            with use_adapter(model, reference):
                theirs = _distributions(model, tokenizer, batch)
            found += [(one.exp() * (one - other)).sum(-1) for one, other in zip(ours, theirs, strict=True)]
    return float(torch.cat(found).mean())


def _distributions(model: Any, tokenizer: Any, batch: Sequence[tuple[Prompt, Sequence[int]]]) -> list[Any]:
    """For each answer, the log-probabilities of all tokens at each of its places."""
    import torch

    inputs = _padded(
        [[*prompt.tokens, *answer] for prompt, answer in batch], tokenizer.pad_token_id, model.device, left=False
    )
    logits = model(**inputs, use_cache=False).logits
    places = [slice(len(prompt.tokens) - 1, len(prompt.tokens) - 1 + len(answer)) for prompt, answer in batch]
    return [torch.log_softmax(row[place].float(), dim=-1) for row, place in zip(logits, places, strict=True)]


def in_passes(prompts: Sequence[Prompt], count: int, seed: int) -> list[Prompt]:
    """So many prompts, one shuffled pass over them after another; the same seed shuffles the same."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    drawn: list[int] = []
    while len(drawn) < count:
        drawn += torch.randperm(len(prompts), generator=generator).tolist()
    return [prompts[index] for index in drawn[:count]]


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _padded(rows: Sequence[list[int]], pad: int, device: Any, *, left: bool) -> dict[str, Any]:
    import torch

    width = max(map(len, rows))
    gaps = [width - len(row) for row in rows]
    tokens = [[pad] * gap + row if left else row + [pad] * gap for row, gap in zip(rows, gaps, strict=True)]
    mask = [[0] * gap + [1] * (width - gap) if left else [1] * (width - gap) + [0] * gap for gap in gaps]
    return {"input_ids": torch.tensor(tokens, device=device), "attention_mask": torch.tensor(mask, device=device)}


def _to_end(tokens: list[int], ends: Sequence[int]) -> list[int]:
    for index, token in enumerate(tokens):
        if token in ends:
            return tokens[: index + 1]
    return tokens
