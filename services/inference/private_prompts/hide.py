"""Private prompts: the model sees surrogates only, and the caller gets the personal values back."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from services.inference.adapters.anonymization import AnonymizationClient
from services.inference.domain import STOPPED, AnswerPiece, ChatMessage, GenerationRequest, Sampling
from services.inference.ports import Stream
from services.inference.private_prompts.restore import Restorer, StopTexts, add_spellings
from services.inference.validation import SCHEMA
from tailor.errors import InvalidArgument, Reason
from tailor.values import Labels

# Annotations for people, which no model sees.
ANNOTATIONS = ("title", "description", "$comment")
MIN_VALUE_CHARACTERS = 3


def enum_texts(schema: Any) -> Iterator[str]:
    """The texts in `enum` and `const`, which an answer may have to contain."""
    if isinstance(schema, dict):
        choices = schema.get("enum")
        choices = [*(choices if isinstance(choices, list) else ()), schema.get("const")]
        yield from (choice for choice in choices if isinstance(choice, str) and choice.strip())
    for part in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        yield from enum_texts(part)


def replace_enum_texts(schema: Any, replacements: Mapping[str, str]) -> Any:
    """The schema with the texts in `enum` and `const` replaced, and without annotations."""
    if isinstance(schema, list):
        return [replace_enum_texts(part, replacements) for part in schema]
    if not isinstance(schema, dict):
        return schema
    changed: dict[str, Any] = {}
    for name, part in schema.items():
        if name in ANNOTATIONS and isinstance(part, str):
            continue
        if name == "enum" and isinstance(part, list):
            changed[name] = [replacements.get(choice, choice) if isinstance(choice, str) else choice for choice in part]
        elif name == "const" and isinstance(part, str):
            changed[name] = replacements.get(part, part)
        else:
            changed[name] = replace_enum_texts(part, replacements)
    return changed


def refuse_values(schema: str, values: Iterable[str]) -> None:
    """Raise InvalidArgument (PRIVATE_SCHEMA) if a personal value of the prompt is a word of the schema."""
    for value in values:
        spelling = json.dumps(value, ensure_ascii=False)[1:-1]
        if len(value) >= MIN_VALUE_CHARACTERS and re.search(rf"(?<!\w){re.escape(spelling)}(?!\w)", schema):
            message = (
                "This specialist's prompts are private: a schema may contain personal data in `enum` and `const` only."
            )
            raise InvalidArgument(Reason.PRIVATE_SCHEMA, message, field_violations={SCHEMA: message})


@dataclass(frozen=True)
class HiddenRequest:
    """A request with surrogates in place of personal values; `open` wraps the engine's stream to put the values back."""

    request: GenerationRequest
    open: Callable[[Stream], Stream] = field(repr=False)


def hide(
    anonymizer: AnonymizationClient, request: GenerationRequest, labels: Labels, system_prompt: str
) -> HiddenRequest:
    """Replace the personal values of a request, except in the specialist's own system prompt. The values live as long as the result.

    Raises InvalidArgument for log-probabilities, which would be those of surrogates, and for a schema with personal values outside `enum`
    and `const`; Unavailable (BARRIER_UNAVAILABLE) while anonymization does not answer.
    """
    _refuse_log_probabilities(request.sampling)
    own_prompt = request.messages[:1] if request.messages[0] == ChatMessage("system", system_prompt) else ()
    messages = request.messages[len(own_prompt) :]
    schema = json.loads(request.sampling.schema) if request.sampling.schema else None
    choices = list(enum_texts(schema))
    texts = [*(message.content for message in messages), *choices]
    clean, pairs = anonymizer.hide(texts, labels, (system_prompt, *request.sampling.stop))
    contents, clean_choices = clean[: len(messages)], clean[len(messages) :]
    hidden = tuple(ChatMessage(message.role, text) for message, text in zip(messages, contents, strict=True))
    clean_schema = ""
    if schema is not None:
        changed = replace_enum_texts(schema, dict(zip(choices, clean_choices, strict=True)))
        clean_schema = json.dumps(changed, ensure_ascii=False)
        refuse_values(clean_schema, pairs.values())
    spellings, stop = add_spellings(pairs, texts), request.sampling.stop

    def open_stream(stream: Stream) -> Stream:
        return RestoredStream(stream, spellings, stop, is_json=schema is not None)

    sampling = replace(request.sampling, schema=clean_schema, stop=())
    return HiddenRequest(replace(request, messages=(*own_prompt, *hidden), sampling=sampling), open_stream)


def _refuse_log_probabilities(sampling: Sampling) -> None:
    if sampling.top_log_probabilities is not None:
        message = (
            "This specialist's prompts are private: log-probabilities would be those of surrogates. Leave them out."
        )
        violations = {"log_probabilities": message}
        raise InvalidArgument(Reason.NO_LOG_PROBABILITIES, message, field_violations=violations)


class RestoredStream(Stream):
    """A stream with the personal values back in its texts. Stop texts are matched against the answer that the caller gets."""

    def __init__(self, stream: Stream, pairs: Mapping[str, str], stop: Iterable[str], *, is_json: bool = False) -> None:
        self._stream = stream
        self._thoughts = Restorer(pairs)
        self._restorer = Restorer(pairs, is_json=is_json)
        self._stop = StopTexts(stop)

    def __iter__(self) -> Iterator[AnswerPiece]:
        for piece in self._stream:
            parts = self._restorer.add(piece.text)
            if piece.finish:
                parts += self._restorer.rest()
            parts, is_stopped = self._stop.add(parts, is_last=bool(piece.finish))
            finish = STOPPED if is_stopped else piece.finish
            text, model_text = "".join(part.text for part in parts), "".join(part.model_text for part in parts)
            yield replace(piece, text=text, model_text=model_text, finish=finish, thought=self._restore_thought(piece))
            if is_stopped:
                self._stream.cancel()
                return

    def _restore_thought(self, piece: AnswerPiece) -> str:
        parts = self._thoughts.add(piece.thought)
        if piece.text or piece.finish:
            parts += self._thoughts.rest()
        return "".join(part.text for part in parts)

    def cancel(self) -> None:
        self._stream.cancel()
