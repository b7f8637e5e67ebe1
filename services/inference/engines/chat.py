"""The base's own chat template and tokenizer, the same for both engines."""

import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jinja2
from transformers import AutoTokenizer

from services.inference.domain import ChatMessage
from tailor.chat import defuse
from tailor.errors import InvalidArgument, Reason


class ChatTemplate:
    """Encodes chats as tokens. Thread-safe."""

    def __init__(self, folder: Path) -> None:
        # A fast tokenizer raises if two threads use it at once.
        self._lock = threading.Lock()
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)

    def encode(self, messages: Sequence[ChatMessage]) -> tuple[int, ...]:
        """The prompt's tokens, up to the start of the answer. Raises InvalidArgument (CHAT_REFUSED) if the template refuses the chat."""
        return self._tokens(self._render(messages, add_generation_prompt=True))

    def encode_answered(
        self, messages: Sequence[ChatMessage], completion: str
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The tokens of the prompt, and those of the answer with its end of turn. Raises as `encode`."""
        prompt = self._render(messages, add_generation_prompt=True)
        chat = self._render([*messages, ChatMessage("assistant", completion)], add_generation_prompt=False)
        end = self.tokenizer.eos_token
        answer = chat.removeprefix(prompt) if chat.startswith(prompt) else defuse(completion, self.tokenizer)
        answer = answer[: answer.rindex(end)] if end in answer else answer
        return self._tokens(prompt), (*self._tokens(answer), self.tokenizer.eos_token_id)

    def check(self, tokens: Iterable[int]) -> None:
        """Raise InvalidArgument (UNKNOWN_TOKEN) if the base does not have one of the tokens."""
        if not all(0 <= token < len(self.tokenizer) for token in tokens):
            raise InvalidArgument(Reason.UNKNOWN_TOKEN, "The base's vocabulary does not have one of the tokens.")

    def token(self, token_id: int) -> str:
        """One token's characters, also of a special one."""
        with self._lock:
            return str(self.tokenizer.decode([token_id]))

    def _render(self, messages: Sequence[ChatMessage], *, add_generation_prompt: bool) -> str:
        chat = [{"role": message.role, "content": defuse(message.content, self.tokenizer)} for message in messages]
        try:
            text: str = self.tokenizer.apply_chat_template(
                chat, tokenize=False, add_generation_prompt=add_generation_prompt
            )
        except jinja2.TemplateError as error:
            raise InvalidArgument(
                Reason.CHAT_REFUSED,
                f"The base's chat template does not accept these messages ({type(error).__name__}).",
            ) from None
        return text

    def _tokens(self, text: str) -> tuple[int, ...]:
        with self._lock:
            return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])
