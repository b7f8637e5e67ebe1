"""Prompts of preference rows, and the answers that a model writes to them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from services.training.bases.capabilities import read_capabilities
from services.training.methods import row_files
from services.training.methods.row_files import RowEncoder
from services.training.recipe_parts import RolloutRecipe
from tailor.chat import encode_prompt, rejected_row
from tailor.chat import end_tokens as list_ends
from tailor.errors import InvalidArgument, Reason

BATCH = 16
FORWARD_BATCH = 4  # small, because the logits of twice as many answers over the whole vocabulary are in memory

T = TypeVar("T")


@dataclass(frozen=True)
class Prompt:
    """A conversation that waits for the assistant, and its token ids up to where the answer begins."""

    row_id: str
    messages: tuple[dict[str, str], ...]
    tokens: tuple[int, ...]


def read_prompts(
    paths: Sequence[Path], tokenizer: Any, max_length: int, *, thinking: bool = False
) -> tuple[list[Prompt], int]:
    """The distinct prompts of Parquet files with at most `max_length` tokens, in their order, and how many are longer or invalid.

    Raises InvalidArgument (INVALID_DATASET, WRONG_DATASET_KIND, INVALID_ROW).
    """
    prompts: dict[tuple[int, ...], Prompt] = {}
    too_long: set[tuple[int, ...]] = set()
    encoder = prompt_encoder(tokenizer, thinking=thinking)
    for prompt in encoder.encode_all(row_files.read(paths, row_files.CHATS)):
        if len(prompt.tokens) > max_length:
            too_long.add(prompt.tokens)
        else:
            prompts.setdefault(prompt.tokens, prompt)
    return list(prompts.values()), len(too_long) + encoder.skipped


def prompt_encoder(tokenizer: Any, *, thinking: bool = False) -> RowEncoder[Prompt]:
    """Encodes rows whose messages end with the user's."""

    def encode(row: dict[str, Any]) -> Prompt:
        row_id, messages = row["row_id"], row["messages"]
        return Prompt(row_id, tuple(messages), prompt_tokens(row_id, messages, tokenizer, thinking=thinking))

    return RowEncoder(row_files.CHATS, encode)


def prompt_tokens(
    row_id: str, messages: Sequence[dict[str, str]], tokenizer: Any, *, thinking: bool = False
) -> tuple[int, ...]:
    """Token ids of a prompt up to where its answer begins. Raises InvalidArgument (INVALID_ROW) unless it ends with text of the user."""
    if not messages or messages[-1]["role"] != "user" or not messages[-1]["content"].strip():
        raise InvalidArgument(Reason.INVALID_ROW, f"The prompt of row {row_id} does not end with text of the user.")
    from jinja2 import TemplateError

    try:
        return tuple(encode_prompt(messages, tokenizer, thinking=thinking))
    except TemplateError:
        raise rejected_row(row_id, messages) from None


def end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """The tokens that end an answer."""
    return list_ends(tokenizer, model.generation_config.eos_token_id)


def use_plain_attention(model: Any, base: Path) -> Any:
    """The model with attention that can generate: attention for packed rows supports neither a cache nor padding."""
    model.get_base_model().set_attn_implementation(read_capabilities(base).plain_attention)
    return model


def write_answers(
    model: Any, tokenizer: Any, prompts: Sequence[Prompt], rollout: RolloutRecipe, seed: int, *, at_once: int = BATCH
) -> list[list[int]]:
    """One answer per prompt as token ids, including the end token, sampled as the recipe's rollouts are. Deterministic by seed.

    `at_once` of them are written in one batch.
    """
    import torch
    from transformers import set_seed

    set_seed(seed)
    model.eval()
    ends = end_tokens(model, tokenizer)
    answers = []
    with torch.no_grad():
        for batch in _batches(prompts, at_once):
            inputs = _pad([list(prompt.tokens) for prompt in batch], tokenizer.pad_token_id, model.device, left=True)
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
            answers += [_cut_after_end(tokens.tolist(), ends) for tokens in written[:, inputs["input_ids"].shape[1] :]]
    return answers


def divergence(
    model: Any, tokenizer: Any, prompts: Sequence[Prompt], answers: Sequence[Sequence[int]], reference: str
) -> float:
    """Mean Kullback-Leibler divergence KL(active adapter || adapter `reference`) over the answers' tokens, in nats per token."""
    import torch
    from trl.trainer.utils import use_adapter

    model.eval()
    divergences = []
    with torch.no_grad():
        for batch in _batches(list(zip(prompts, answers, strict=True)), FORWARD_BATCH):
            ours = _log_probabilities(model, tokenizer, batch)
            with use_adapter(model, reference):
                theirs = _log_probabilities(model, tokenizer, batch)
            divergences += [(our.exp() * (our - their)).sum(-1) for our, their in zip(ours, theirs, strict=True)]
    return float(torch.cat(divergences).mean())


def _log_probabilities(model: Any, tokenizer: Any, batch: Sequence[tuple[Prompt, Sequence[int]]]) -> list[Any]:
    """For each answer, log-probabilities of the next token at each of its positions: (answer tokens, vocabulary)."""
    import torch

    inputs = _pad(
        [[*prompt.tokens, *answer] for prompt, answer in batch], tokenizer.pad_token_id, model.device, left=False
    )
    logits = model(**inputs, use_cache=False).logits  # (batch, tokens, vocabulary)
    spans = [slice(len(prompt.tokens) - 1, len(prompt.tokens) - 1 + len(answer)) for prompt, answer in batch]
    return [torch.log_softmax(row[span].float(), dim=-1) for row, span in zip(logits, spans, strict=True)]


def draw_passes(prompts: Sequence[Prompt], count: int, seed: int) -> list[Prompt]:
    """`count` prompts, from one shuffled pass over all of them after another. Deterministic by seed."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    drawn: list[int] = []
    while len(drawn) < count:
        drawn += torch.randperm(len(prompts), generator=generator).tolist()
    return [prompts[index] for index in drawn[:count]]


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _pad(rows: Sequence[list[int]], pad: int, device: Any, *, left: bool) -> dict[str, Any]:
    """Token ids and attention mask, both (rows, longest)."""
    import torch

    width = max(map(len, rows))
    gaps = [width - len(row) for row in rows]
    tokens = [[pad] * gap + row if left else row + [pad] * gap for row, gap in zip(rows, gaps, strict=True)]
    mask = [[0] * gap + [1] * (width - gap) if left else [1] * (width - gap) + [0] * gap for gap in gaps]
    return {"input_ids": torch.tensor(tokens, device=device), "attention_mask": torch.tensor(mask, device=device)}


def _cut_after_end(tokens: list[int], ends: Sequence[int]) -> list[int]:
    for index, token in enumerate(tokens):
        if token in ends:
            return tokens[: index + 1]
    return tokens
