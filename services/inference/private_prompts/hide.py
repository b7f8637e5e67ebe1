"""Private prompts: the model sees surrogates only, and the caller gets the personal values back."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

from services.inference.domain import STOPPED, AnswerPiece, ChatMessage, GenerationRequest, Sampling
from services.inference.ports import Anonymization, Stream
from services.inference.private_prompts.restore import Restorer, StopTexts, add_spellings
from services.inference.private_prompts.schema import enum_texts, refuse_values, replace_enum_texts
from tailor.errors import InvalidArgument, Reason
from tailor.values import Labels


@dataclass(frozen=True)
class HiddenRequest:
    """A request with surrogates in place of personal values; `open` wraps the engine's stream to put the values back."""

    request: GenerationRequest
    open: Callable[[Stream], Stream] = field(repr=False)


def hide(anonymizer: Anonymization, request: GenerationRequest, labels: Labels, system_prompt: str) -> HiddenRequest:
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
        return RestoredStream(stream, Restorer(spellings, is_json=schema is not None), stop)

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
    """An engine's stream with the personal values back in its text. Stop texts are matched against the text that the caller gets."""

    def __init__(self, stream: Stream, restorer: Restorer, stop: Iterable[str]) -> None:
        self._stream = stream
        self._restorer = restorer
        self._stop = StopTexts(stop)

    def __iter__(self) -> Iterator[AnswerPiece]:
        for piece in self._stream:
            parts = self._restorer.add(piece.text)
            if piece.finish:
                parts += self._restorer.rest()
            parts, is_stopped = self._stop.add(parts, is_last=bool(piece.finish))
            finish = STOPPED if is_stopped else piece.finish
            text, model_text = "".join(part.text for part in parts), "".join(part.model_text for part in parts)
            yield replace(piece, text=text, model_text=model_text, finish=finish)
            if is_stopped:
                self._stream.cancel()
                return

    def cancel(self) -> None:
        self._stream.cancel()
