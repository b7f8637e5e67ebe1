"""Answers of bases that think first: the thought is split off, and goes to callers only if their specialist shows it."""

from collections.abc import Iterator
from dataclasses import replace

from services.inference.domain import STOPPED, AnswerPiece, Sampling
from services.inference.ports import InferenceEngine, Stream
from services.inference.private_prompts.restore import StopTexts, TextPart
from tailor.errors import InvalidArgument, Reason
from tailor.thoughts import ThoughtMarkers, ThoughtSplitter
from tailor.values import Thinking


def choose_markers(engine: InferenceEngine, sampling: Sampling) -> ThoughtMarkers | None:
    """The markers of the thought that comes before the answer; None if none comes: a JSON schema begins with the first token.

    Raises InvalidArgument (NO_LOG_PROBABILITIES) for log-probabilities, which would be those of the thought, too.
    """
    if sampling.thinking == Thinking.OFF or sampling.schema or engine.thought is None:
        return None
    if sampling.top_log_probabilities is not None:
        message = (
            "This model thinks before it answers: log-probabilities would be those of its thought, too. Leave them out."
        )
        raise InvalidArgument(Reason.NO_LOG_PROBABILITIES, message, field_violations={"log_probabilities": message})
    return engine.thought


class SplitStream(Stream):
    """An engine's stream with the thought apart from the answer. Stop texts end the answer; a thought may contain them."""

    def __init__(self, stream: Stream, markers: ThoughtMarkers, sampling: Sampling) -> None:
        self._stream = stream
        self._splitter = ThoughtSplitter(markers)
        self._stop = StopTexts(sampling.stop)
        self._is_shown = sampling.thinking == Thinking.SHOWN

    def __iter__(self) -> Iterator[AnswerPiece]:
        for piece in self._stream:
            is_last = bool(piece.finish)
            thought, answer = self._splitter.add(piece.text, is_last=is_last)
            parts, is_stopped = self._stop.add([TextPart(answer, answer)], is_last=is_last)
            finish = STOPPED if is_stopped else piece.finish
            text = "".join(part.text for part in parts)
            yield replace(piece, text=text, thought=thought if self._is_shown else "", finish=finish)
            if is_stopped:
                self._stream.cancel()
                return

    def cancel(self) -> None:
        self._stream.cancel()


def open_stream(
    engine: InferenceEngine, prompt: tuple[int, ...], adapter: str, sampling: Sampling, markers: ThoughtMarkers | None
) -> Stream:
    """Start an answer; with markers, one whose thought is split off."""
    if markers is None:
        return engine.generate(prompt, adapter, sampling)
    written = replace(sampling, stop=(), with_control_tokens=True)
    return SplitStream(engine.generate(prompt, adapter, written), markers, sampling)
