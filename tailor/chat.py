"""What people wrote, as a chat template may take it: training and serving must render a chat alike."""

from typing import Any


def defused(text: str, tokenizer: Any) -> str:
    """The text with a space behind the first character of every control token of a transformers tokenizer, such as `<|im_end|>`.

    In a template's place for words they would end the turn and begin another one's: a caller could speak as the system, a document as the
    assistant.
    """
    for token in tokenizer.added_tokens_decoder.values():
        word = token.content
        if token.special and len(word) > 1 and word in text:
            text = text.replace(word, f"{word[0]} {word[1:]}")
    return text
