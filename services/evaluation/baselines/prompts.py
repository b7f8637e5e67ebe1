"""How a prompt is put together from a row, guidelines and examples."""

from collections.abc import Sequence

from services.evaluation.domain import HeldOutRow
from services.evaluation.ports import Messages


def with_instructions(row: HeldOutRow, instructions: str) -> Messages:
    """The row's chat with instructions after its own system prompt."""
    if not instructions:
        return row.messages
    role, content = row.messages[0]
    if role == "system":
        return (("system", f"{content}\n\n{instructions}"), *row.messages[1:])
    return (("system", instructions), *row.messages)


def with_examples(row: HeldOutRow, guidelines: str, examples: Sequence[HeldOutRow]) -> Messages:
    """The row's chat with guidelines, and with examples as earlier turns, the most similar one last."""
    messages = with_instructions(row, guidelines)
    head = 1 if messages[0][0] == "system" else 0
    turns = [turn for example in reversed(examples) for turn in _turns(example)]
    return (*messages[:head], *turns, *messages[head:])


def _turns(example: HeldOutRow) -> Messages:
    return (*(turn for turn in example.messages if turn[0] != "system"), ("assistant", example.reference))
