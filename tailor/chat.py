"""Chats as a base reads them. Training, serving and the builder of datasets share this, because they must render a chat alike.

The stored template of a base adds an empty thought to a prompt, if the base thinks at all, unless it is rendered with `thinking`.
"""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile
from typing import Any, Protocol

from tailor.errors import InvalidArgument, Reason

TOKEN_IDS: dict[int, int] = {}
# The template's variable with which a base thinks before it answers.
THINKING = "thinking"
# The chat by which a template is found out.
QUESTION = {"role": "user", "content": "Which control failed?"}
ANSWER = {"role": "assistant", "content": "The second one."}

Message = Mapping[str, str]


class ChatTokenizer(Protocol):
    """The part of a transformers tokenizer that rows are encoded with."""

    @property
    def eos_token(self) -> str | None:
        """The token that ends a text."""
        ...

    @property
    def added_tokens_decoder(self) -> Mapping[int, Any]:
        """Special tokens by id."""
        ...

    def apply_chat_template(self, conversation: Any, **options: Any) -> Any:
        """A conversation as text, with `tokenize=False`."""
        ...

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Token ids of a text."""
        ...


@dataclass(frozen=True)
class AnswerFrame:
    """The text around an answer: blanks before it, which the tokenizer joins with the first word, and the end of its turn."""

    before: str
    end: str


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


def render(messages: Sequence[Message], tokenizer: ChatTokenizer, **options: Any) -> str:
    """A conversation by the base's own chat template. Raises jinja2.TemplateError if the template rejects it."""
    conversation = [{**message, "content": defuse(message["content"], tokenizer)} for message in messages]
    return str(tokenizer.apply_chat_template(conversation, tokenize=False, **options))


@lru_cache(maxsize=8)
def find_frame(tokenizer: Any) -> AnswerFrame:
    """Find the frame of answers by an example. Raises jinja2.TemplateError if the template rejects it.

    After its last turn a template may add more than the end of the turn, or nothing at all. So the end is what follows an answer in the
    last turn and in an earlier one, up to its last control token; `eos_token` for a template that ends turns only by beginning the next.
    """
    prompt = render([QUESTION], tokenizer, add_generation_prompt=True)
    before, _, last = render([QUESTION, ANSWER], tokenizer).rpartition(ANSWER["content"])
    blanks = before.removeprefix(prompt)
    shared = last[: count_equal(last, _follow(tokenizer) or last)]
    words = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    words += [tokenizer.eos_token] if tokenizer.eos_token else []
    end = _cut_after_last(shared, words) or _cut_after_last(last, words) or tokenizer.eos_token or ""
    return AnswerFrame(blanks if blanks.isspace() else "", end)


def _follow(tokenizer: ChatTokenizer) -> str:
    """What follows an answer that is answered again; empty if the template rejects that."""
    from jinja2 import TemplateError

    try:
        return render([QUESTION, ANSWER, QUESTION], tokenizer, add_generation_prompt=True).split(ANSWER["content"])[-1]
    except TemplateError:
        return ""


def count_equal(first: Sequence[object], second: Sequence[object]) -> int:
    """The number of items that both begin with."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))


def _cut_after_last(text: str, words: Sequence[str]) -> str:
    return text[: max((text.rfind(word) + len(word) for word in words if word in text), default=0)]


def encode_end(tokenizer: ChatTokenizer) -> list[int]:
    """The tokens that end a turn."""
    return tokenizer.encode(find_frame(tokenizer).end, add_special_tokens=False)  # type: ignore[arg-type]  # mypy takes no Protocol for Hashable


def end_tokens(tokenizer: Any, declared: object) -> list[int]:
    """The tokens at which an answer ends: the turn's, the tokenizer's, and those that the generation configuration declares."""
    listed = declared if isinstance(declared, list) else [declared]
    return sorted({tokenizer.eos_token_id, *encode_end(tokenizer)[-1:], *listed} - {None})


def encode_prompt(messages: Sequence[Message], tokenizer: ChatTokenizer, *, thinking: bool = False) -> list[int]:
    """Token ids of a conversation up to where its answer begins. Raises jinja2.TemplateError if the template rejects it."""
    options = {THINKING: True} if thinking else {}
    text = render(messages, tokenizer, add_generation_prompt=True, **options)
    return tokenizer.encode(text, add_special_tokens=False)


def encode_answer(messages: Sequence[Message], answer: str, tokenizer: ChatTokenizer) -> tuple[list[int], list[int]]:
    """Token ids of the prompt, and of the answer with the end of its turn, as a base that does not think would write it.

    Raises jinja2.TemplateError if the template rejects the prompt.
    """
    text = render(messages, tokenizer, add_generation_prompt=True)
    frame = find_frame(tokenizer)  # type: ignore[arg-type]
    written = f"{frame.before}{defuse(answer, tokenizer)}{frame.end}"
    prompt, whole = (tokenizer.encode(part, add_special_tokens=False) for part in (text, text + written))
    if whole[: len(prompt)] == prompt:
        return prompt, whole[len(prompt) :]
    # Together, the tokenizer would join the answer's beginning with the prompt's end.
    return prompt, tokenizer.encode(written, add_special_tokens=False)


def encode(row_id: str, messages: Sequence[Message], tokenizer: ChatTokenizer) -> Encoded:
    """Encode a row, as in serving, up to and including the token that ends the last turn.

    Earlier answers are learned as far as the template renders them as the base would write them.
    Raises InvalidArgument (INVALID_ROW) if the last message is not the assistant's, or the template rejects the conversation.
    """
    from jinja2 import TemplateError

    if len(messages) < 2 or messages[-1]["role"] != "assistant":
        raise InvalidArgument(Reason.INVALID_ROW, f"Row {row_id} does not end with an answer of the assistant.")
    answers = [number for number, message in enumerate(messages) if message["role"] == "assistant"]
    try:
        *earlier, (prompt, answer) = [
            encode_answer(messages[:number], messages[number]["content"], tokenizer) for number in answers
        ]
    except TemplateError:
        raise rejected_row(row_id, messages) from None
    learned = [(len(asked), count_equal(asked + written, prompt)) for asked, written in earlier]
    # One object per token id: 8 bytes per token of a large dataset instead of 36.
    tokens = tuple(TOKEN_IDS.setdefault(token, token) for token in (*prompt, *answer))
    return Encoded(row_id, tokens, len(prompt), tuple((start, end) for start, end in learned if start < end))


def rejected_row(row_id: str, messages: Sequence[Message]) -> InvalidArgument:
    """The error of a row whose conversation the template rejects."""
    roles = ", ".join(message["role"] for message in messages)
    return InvalidArgument(
        Reason.INVALID_ROW, f"The base's chat template rejects row {row_id}, a conversation of {roles}."
    )
