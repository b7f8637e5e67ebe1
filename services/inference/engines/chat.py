"""The base's own chat template and tokenizer, the same for both engines."""

import json
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jinja2
from transformers import AutoTokenizer

from services.inference.adapters.model_store import CAPABILITIES
from services.inference.domain import ChatMessage
from tailor.chat import encode_answer, encode_prompt, end_tokens
from tailor.errors import InvalidArgument, Reason
from tailor.thoughts import find_markers


class ChatTemplate:
    """Encodes chats as tokens. Thread-safe."""

    def __init__(self, folder: Path) -> None:
        # A fast tokenizer raises if two threads use it at once.
        self._lock = threading.Lock()
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        self.thought = find_markers(self.tokenizer, *_read_thought(folder / CAPABILITIES))

    def encode(self, messages: Sequence[ChatMessage], *, thinking: bool = False) -> tuple[int, ...]:
        """The prompt's tokens, up to the start of the answer. Raises InvalidArgument (CHAT_REFUSED) if the template refuses the chat."""
        with self._rendering():
            return tuple(encode_prompt(_to_chat(messages), self.tokenizer, thinking=thinking))

    def encode_answered(
        self, messages: Sequence[ChatMessage], completion: str
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The tokens of the prompt, and those of the answer with its end of turn. Raises as `encode`."""
        with self._rendering():
            prompt, answer = encode_answer(_to_chat(messages), completion, self.tokenizer)
        return tuple(prompt), tuple(answer)

    def ends(self, declared: object) -> list[int]:
        """The tokens at which an answer ends, with those that the base's generation configuration declares."""
        with self._lock:
            return end_tokens(self.tokenizer, declared)

    def check(self, tokens: Iterable[int]) -> None:
        """Raise InvalidArgument (UNKNOWN_TOKEN) if the base does not have one of the tokens."""
        if not all(0 <= token < len(self.tokenizer) for token in tokens):
            raise InvalidArgument(Reason.UNKNOWN_TOKEN, "The base's vocabulary does not have one of the tokens.")

    def token(self, token_id: int) -> str:
        """One token's characters, also of a special one."""
        with self._lock:
            return str(self.tokenizer.decode([token_id]))

    @contextmanager
    def _rendering(self) -> Iterator[None]:
        try:
            with self._lock:
                yield
        except jinja2.TemplateError as error:
            raise InvalidArgument(
                Reason.CHAT_REFUSED,
                f"The base's chat template does not accept these messages ({type(error).__name__}).",
            ) from None


def _to_chat(messages: Sequence[ChatMessage]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


def _read_thought(path: Path) -> tuple[str, str]:
    """The texts before and after a thought of the base; both are empty if it does not think, or is older than its capabilities."""
    chat = json.loads(path.read_text(encoding="utf-8")).get("chat", {}) if path.is_file() else {}
    return str(chat.get("thought_start", "")), str(chat.get("thought_end", ""))
