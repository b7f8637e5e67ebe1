"""Round-trip privacy: a specialist's prompts reach the model with surrogates alone, and their answers get the values back."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from services.inference.choices import choices, refuse_values, with_choices
from services.inference.domain import STOPPED, Ask, Piece, Sampling, Served, Stream, Turn
from services.inference.keeping import Labels
from services.inference.restoring import Restorer, Stops, variants
from tailor.errors import InvalidArgument, Reason

NO_LABELS: Labels = ("", "", "")


class PromptBarrier(Protocol):
    """Anonymization, as far as prompts need it."""

    def hide(
        self, texts: Sequence[str], labels: Labels, beside: Sequence[str]
    ) -> tuple[tuple[str, ...], Mapping[str, str]]:
        """The texts with surrogates drawn for this call alone, none of which stands in the texts `beside`; and the values by surrogate.

        InvalidArgument where they are too long, Unavailable (BARRIER_UNAVAILABLE) while it does not answer.
        """
        ...


class Private:
    """The specialists whose prompts are private, with the labels that the barrier goes by. Thread-safe."""

    def __init__(self) -> None:
        self._known: dict[str, Labels | None] = {}

    def define(self, specialist: str, labels: Labels | None) -> None:
        """From now on its prompts are private under these labels; None for prompts that are not."""
        self._known[specialist] = labels

    def forget(self, specialist: str) -> None:
        """The specialist's definition is not known any more."""
        self._known.pop(specialist, None)

    def labels(self, served: Served) -> Labels | None:
        """The labels of private prompts; None where they are not private. What serves decides until the definition is known here."""
        return self._known.get(served.specialist, NO_LABELS if served.private_prompts else None)


@dataclass(frozen=True)
class HiddenAsk:
    """A question in which surrogates stand for personal values, and how its answer is read."""

    ask: Ask
    open: Callable[[Stream], Stream] = field(repr=False)


def hide(barrier: PromptBarrier, ask: Ask, labels: Labels, system_prompt: str) -> HiddenAsk:
    """Take a question through the barrier; the specialist's own system prompt stays. Nothing outlives the question and its stream.

    InvalidArgument for log-probabilities, which would tell of surrogates, and for a schema that names somebody beyond enum and const.
    """
    _refuse_log_probabilities(ask.sampling)
    own = ask.turns[:1] if ask.turns[0] == Turn("system", system_prompt) else ()
    turns = ask.turns[len(own) :]
    schema = json.loads(ask.sampling.schema) if ask.sampling.schema else None
    offered = list(choices(schema))
    texts = [*(turn.content for turn in turns), *offered]
    clean, pairs = barrier.hide(texts, labels, (system_prompt, *ask.sampling.stop))
    hidden = tuple(Turn(turn.role, text) for turn, text in zip(turns, clean[: len(turns)], strict=True))
    written = ""
    if schema is not None:
        changed = with_choices(schema, dict(zip(offered, clean[len(turns) :], strict=True)))
        written = json.dumps(changed, ensure_ascii=False)
        refuse_values(written, pairs.values())
    known, stops = variants(pairs, texts), ask.sampling.stop

    def open_stream(stream: Stream) -> Stream:
        return PrivateStream(stream, Restorer(known, is_json=schema is not None), stops)

    return HiddenAsk(
        replace(ask, turns=(*own, *hidden), sampling=replace(ask.sampling, schema=written, stop=())), open_stream
    )


def _refuse_log_probabilities(sampling: Sampling) -> None:
    if sampling.top_log_probabilities is not None:
        message = "Prompts of this specialist are private: the log-probabilities would be those of surrogates."
        violations = {"log_probabilities": message}
        raise InvalidArgument(Reason.NO_LOG_PROBABILITIES, message, field_violations=violations)


class PrivateStream:
    """Satisfies `domain.Stream`: an engine's stream with the values back in its text. Stop texts are looked for in what the caller gets."""

    def __init__(self, stream: Stream, restorer: Restorer, stops: Iterable[str]) -> None:
        self._stream = stream
        self._restorer = restorer
        self._stops = Stops(stops)

    def __iter__(self) -> Iterator[Piece]:
        """The pieces, each with as much text as is certain; errors as the engine's."""
        for piece in self._stream:
            parts = self._restorer.add(piece.text)
            if piece.finish:
                parts += self._restorer.rest()
            parts, is_stopped = self._stops.add(parts, is_last=bool(piece.finish))
            finish = STOPPED if is_stopped else piece.finish
            told, seen = "".join(part.told for part in parts), "".join(part.seen for part in parts)
            yield replace(piece, text=told, seen=seen, finish=finish)
            if is_stopped:
                self._stream.cancel()
                return

    def cancel(self) -> None:
        """End the generation itself."""
        self._stream.cancel()
