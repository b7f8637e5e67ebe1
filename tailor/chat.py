"""Chats as a base reads them. Training, serving and the builder of datasets share this, because they must render a chat alike."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tailor.errors import InvalidArgument, Reason

TOKEN_IDS: dict[int, int] = {}


class ChatTokenizer(Protocol):
    """The part of a transformers tokenizer that rows are encoded with."""

    @property
    def eos_token_id(self) -> int | None:
        """The token that ends a turn."""
        ...

    @property
    def added_tokens_decoder(self) -> Mapping[int, Any]:
        """Special tokens by id."""
        ...

    def apply_chat_template(self, conversation: Any, **options: Any) -> Any:
        """Token ids of a conversation."""
        ...


@dataclass(frozen=True)
class Encoded:
    """One row: its token ids, how many of them come before the last answer, and where the earlier answers are, as [start, end)."""

    row_id: str
    tokens: tuple[int, ...]
    prompt_length: int
    earlier: tuple[tuple[int, int], ...] = ()

    @property
    def learned(self) -> int:
        """The number of tokens that are learned."""
        return len(self.tokens) - self.prompt_length + sum(end - start for start, end in self.earlier)


def clean_message(text: str) -> str:
    """A message without white space around it. An indented text keeps the indentation of its lines relative to each other.

    A tokenizer may join white space at the beginning of an answer with the template's text before it.
    """
    return textwrap.dedent(text).strip()


def defuse(text: str, tokenizer: Any) -> str:
    """Break up control tokens of a transformers tokenizer, such as `<|im_end|>`, by a space after their first character.

    Inside a message they would end it and begin another one: a caller could speak as the system, or a document as the assistant.
    """
    for token in tokenizer.added_tokens_decoder.values():
        word = token.content
        if token.special and len(word) > 1 and word in text:
            text = text.replace(word, f"{word[0]} {word[1:]}")
    return text


def render(
    row_id: str, messages: Sequence[Mapping[str, str]], tokenizer: ChatTokenizer, *, answered: bool
) -> list[int]:
    """Token ids of a conversation by the base's own chat template; if it is not answered, up to where the answer begins.

    Raises InvalidArgument (INVALID_ROW) if the template rejects it.
    """
    from jinja2 import TemplateError

    options = {} if answered else {"add_generation_prompt": True}
    conversation = [{**message, "content": defuse(message["content"], tokenizer)} for message in messages]
    try:
        return list(tokenizer.apply_chat_template(conversation, tokenize=True, return_dict=False, **options))
    except TemplateError:
        roles = ", ".join(message["role"] for message in messages)
        raise InvalidArgument(
            Reason.INVALID_ROW, f"The base's chat template rejects row {row_id}, a conversation of {roles}."
        ) from None


def encode(row_id: str, messages: Sequence[Mapping[str, str]], tokenizer: ChatTokenizer) -> Encoded:
    """Encode a row with the base's own chat template, as in serving, up to and including the token that ends the last turn.

    Raises InvalidArgument (INVALID_ROW) if the last message is not the assistant's, or the template renders an answered prompt differently.
    """
    if len(messages) < 2 or messages[-1]["role"] != "assistant":
        raise InvalidArgument(Reason.INVALID_ROW, f"Row {row_id} does not end with an answer of the assistant.")
    conversation = render(row_id, messages, tokenizer, answered=True)
    *earlier, (start, end) = [
        _find_answer(row_id, messages[: number + 1], conversation, tokenizer, last=number + 1 == len(messages))
        for number, message in enumerate(messages)
        if message["role"] == "assistant"
    ]
    # One object per token id: 8 bytes per token of a large dataset instead of 36.
    tokens = tuple(TOKEN_IDS.setdefault(token, token) for token in conversation[:end])
    return Encoded(row_id, tokens, start, tuple(earlier))


def _find_answer(
    row_id: str, messages: Sequence[Mapping[str, str]], conversation: list[int], tokenizer: ChatTokenizer, *, last: bool
) -> tuple[int, int]:
    """Where the last of the messages is in the rendered conversation, as [start, end) with the token that ends its turn.

    Raises InvalidArgument (INVALID_ROW) if the conversation does not continue the messages as they are rendered without what follows.
    """
    prompt = render(row_id, messages[:-1], tokenizer, answered=False)
    whole = conversation if last else render(row_id, messages, tokenizer, answered=True)
    answered = _cut_after_turn(whole, len(prompt), tokenizer.eos_token_id)
    if answered[: len(prompt)] != prompt or conversation[: len(answered)] != answered:
        raise InvalidArgument(
            Reason.INVALID_ROW,
            f"The base's chat template renders the prompt of row {row_id} differently once it is answered.",
        )
    return len(prompt), len(answered)


def _cut_after_turn(tokens: list[int], start: int, end_token: int | None) -> list[int]:
    # Templates add a line break after the turn. Generation stops before it, so it is not learned.
    for index in range(len(tokens) - 1, start, -1):
        if tokens[index] == end_token:
            return tokens[: index + 1]
    return tokens
