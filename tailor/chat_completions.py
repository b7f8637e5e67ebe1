"""Chat completions of any OpenAI-style endpoint."""

import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import certifi
import openai

# What newer or smaller endpoints do not take, and what they take instead.
REPLACEMENTS = {
    "max_tokens": "max_completion_tokens",
    "temperature": "",
    "top_p": "",
    "seed": "",
    "response_format": "",
}


class ChatCompletions:
    """One model behind one endpoint. Thread-safe.

    Makes one attempt per call, and repeats it without an option that the endpoint refuses by name. Later calls leave that option out.
    Without a `proxy`, the client uses that of the environment (HTTPS_PROXY), if there is one. `ca_file` (PEM) has authorities that are
    trusted besides the public ones, such as the one that signs inference's certificate.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: str = "",
        timeout_seconds: float = 120,
        proxy: str = "",
        ca_file: Path | None = None,
    ) -> None:
        # The client refuses an empty key; an endpoint without keys ignores any.
        self._client = openai.OpenAI(
            base_url=base_url,
            api_key=api_key or "none",
            max_retries=0,
            timeout=timeout_seconds,
            http_client=openai.DefaultHttpxClient(proxy=proxy or None, verify=_context(ca_file)),
        )
        self._unsupported: frozenset[str] = frozenset()
        self.address = base_url
        self.model = model

    def create(self, messages: Sequence[tuple[str, str]], options: Mapping[str, Any]) -> Any:
        """The endpoint's reply to a chat of (role, content). Blocks.

        Raises openai.OpenAIError. Its message may repeat the prompt or a part of the key, so it must not be shown or logged.
        """
        chat = [{"role": role, "content": content} for role, content in messages]
        while True:
            try:
                return self._client.chat.completions.create(**self._request(chat, options))
            except openai.BadRequestError as error:
                if not self._give_up(error):
                    raise

    def _request(self, chat: list[dict[str, str]], options: Mapping[str, Any]) -> dict[str, Any]:
        kept = {REPLACEMENTS[name] if name in self._unsupported else name: value for name, value in options.items()}
        return {"model": self.model, "messages": chat} | {name: value for name, value in kept.items() if name}

    def _give_up(self, error: openai.BadRequestError) -> bool:
        """Remember an option that the endpoint does not take; False if the error names none, or one that was given up already."""
        options = {name for name in REPLACEMENTS if name in (error.param or "") or _is_named(name, error.message)}
        new_options = options - self._unsupported
        self._unsupported |= new_options
        return bool(new_options)


def _context(ca_file: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    # Small images have no authorities of the system.
    context.load_verify_locations(certifi.where())
    if ca_file is not None:
        context.load_verify_locations(ca_file)
    return context


def _is_named(option: str, message: str) -> bool:
    """True if a message names the option. Plain words, such as `seed`, must be quoted."""
    return f"'{option}'" in message or ("_" in option and option in message)
