"""The base's own chat template, the same for both engines."""

import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jinja2
from transformers import AutoTokenizer

from services.inference.domain import Turn
from tailor.chat import defused
from tailor.errors import InvalidArgument, Reason


class ChatTemplate:
    """Turns chats into tokens."""

    def __init__(self, folder: Path) -> None:
        # A fast tokenizer refuses a second thread while it is at work.
        self._lock = threading.Lock()
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)

    def encode(self, turns: Sequence[Turn]) -> tuple[int, ...]:
        """The prompt's tokens, up to where the answer begins; InvalidArgument where the template refuses the turns."""
        return self._tokens(self._render(turns, add_generation_prompt=True))

    def encode_answered(self, turns: Sequence[Turn], completion: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The tokens of the prompt, and those of the answer with its end of turn."""
        prompt = self._render(turns, add_generation_prompt=True)
        whole = self._render([*turns, Turn("assistant", completion)], add_generation_prompt=False)
        end = self.tokenizer.eos_token
        answer = whole.removeprefix(prompt) if whole.startswith(prompt) else defused(completion, self.tokenizer)
        answer = answer[: answer.rindex(end)] if end in answer else answer
        return self._tokens(prompt), (*self._tokens(answer), self.tokenizer.eos_token_id)

    def check(self, tokens: Iterable[int]) -> None:
        """InvalidArgument for tokens that are none of the base's."""
        if not all(0 <= token < len(self.tokenizer) for token in tokens):
            raise InvalidArgument(Reason.UNKNOWN_TOKEN, "A token is none of the base's.")

    def token(self, number: int) -> str:
        """One token's characters, special ones too."""
        with self._lock:
            return str(self.tokenizer.decode([number]))

    def _render(self, turns: Sequence[Turn], *, add_generation_prompt: bool) -> str:
        messages = [{"role": turn.role, "content": defused(turn.content, self.tokenizer)} for turn in turns]
        try:
            text: str = self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=add_generation_prompt
            )
        except jinja2.TemplateError as error:
            raise InvalidArgument(
                Reason.CHAT_REFUSED, f"The base's chat template refuses these turns ({type(error).__name__})."
            ) from None
        return text

    def _tokens(self, text: str) -> tuple[int, ...]:
        with self._lock:
            return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])
