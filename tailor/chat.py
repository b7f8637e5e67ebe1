"""Make texts safe for chat templates. Training and serving share this, because they must render a chat alike."""

from typing import Any


def defuse(text: str, tokenizer: Any) -> str:
    """Break up control tokens of a transformers tokenizer, such as `<|im_end|>`, by a space after their first character.

    Inside a message they would end it and begin another one: a caller could speak as the system, or a document as the assistant.
    """
    for token in tokenizer.added_tokens_decoder.values():
        word = token.content
        if token.special and len(word) > 1 and word in text:
            text = text.replace(word, f"{word[0]} {word[1:]}")
    return text
