"""Puts house examples into a prompt: rows of a dataset whose prompts are most similar, as earlier turns of the chat."""

import math
import re
from collections.abc import Iterable, Iterator, Sequence

from tailor.api.events.v1 import models_pb2
from tailor.api.synthetic.v1 import synthetic_pb2, synthetic_pb2_grpc
from tailor.cli.calls import pages
from tailor.client import Message

# Shorter words, such as articles, say nothing about what a prompt asks for.
WORD = re.compile(r"\w{4,}")


def list_train_rows(
    synthetic: synthetic_pb2_grpc.SyntheticServiceStub, dataset_digest: str
) -> Iterator[synthetic_pb2.Row]:
    """Yield the train rows of a dataset, page by page."""
    request = synthetic_pb2.ListRowsRequest(dataset_digest=dataset_digest, split=synthetic_pb2.SPLIT_TRAIN)
    return pages(synthetic.ListRows, request)


def choose_examples(
    rows: Iterable[synthetic_pb2.Row], prompts: Sequence[str], count: int
) -> list[list[synthetic_pb2.Row]]:
    """For each prompt at most `count` rows, the most similar first. Streams the rows; equal ones are ordered by row id.

    Similarity is the cosine of the sets of words of the prompts. Evaluation, which chooses for rows of a known task, weighs words by their
    rarity: docs/evaluation/baselines.md.
    """
    wanted = [find_words(prompt) for prompt in prompts]
    best: list[list[tuple[float, str, synthetic_pb2.Row]]] = [[] for _ in prompts]
    for row in rows:
        words = find_words(prompt_text(row))
        for chosen, prompt in zip(best, wanted, strict=True):
            chosen.append((-similarity(prompt, words), row.row_id, row))
            chosen.sort(key=lambda item: item[:2])
            del chosen[count:]
    return [[row for *_, row in chosen] for chosen in best]


def to_chat(
    definition: models_pb2.SpecialistChanged, prompt: str, examples: Sequence[synthetic_pb2.Row] = ()
) -> list[Message]:
    """A chat with the specialist's system prompt and, with examples, its guidelines. The most similar example comes last."""
    system = [definition.system_prompt, definition.evaluation.guidelines if examples else ""]
    head = [Message("system", "\n\n".join(filter(None, system)))] if any(system) else []
    turns = [turn for row in reversed(examples) for turn in _turns(row)]
    return [*head, *turns, Message("user", prompt)]


def prompt_text(row: synthetic_pb2.Row) -> str:
    """The chat before the answer, without the system prompt, which all rows of a specialist share."""
    return "\n".join(message.content for message in row.messages[:-1] if message.role != "system")


def find_words(text: str) -> frozenset[str]:
    return frozenset(WORD.findall(text.lower()))


def similarity(first: frozenset[str], second: frozenset[str]) -> float:
    """The cosine of two sets, 0 to 1; 0 if one is empty."""
    return len(first & second) / math.sqrt(len(first) * len(second)) if first and second else 0.0


def _turns(row: synthetic_pb2.Row) -> Iterator[Message]:
    for message in row.messages:
        if message.role == "user":
            yield Message("user", message.content)
        elif message.role == "assistant":
            yield Message("assistant", message.content)
