"""An answer on its way from vLLM's thread to the caller's thread."""

import queue
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Future
from typing import Any

from services.inference.domain import CANCELLED, AnswerPiece, LikelyToken, Sampling, TokenLogProbability
from services.inference.engines.finite import not_finite
from services.inference.engines.grammar import schema_given_up
from services.inference.ports import Stream
from tailor.engine.overflow import OVERFLOW
from tailor.errors import Reason, TailorError, Unavailable

# vLLM's finish reasons that differ from ours.
ABORTED = "abort"
FAILED = "error"


class VllmStream(Stream):
    """An answer that the engine's thread writes and the caller's thread reads. `characters` gives those of a token."""

    def __init__(
        self,
        outputs: Any,
        run: Callable[[Coroutine[Any, Any, None]], "Future[None]"],
        characters: Callable[[int], str],
        sampling: Sampling,
    ) -> None:
        self._outputs = outputs
        self._characters = characters
        self._sampling = sampling
        self._pieces: queue.SimpleQueue[AnswerPiece | TailorError | None] = queue.SimpleQueue()
        self._future = run(self._pump())
        self._future.add_done_callback(self._end)

    def __iter__(self) -> Iterator[AnswerPiece]:
        tokens = 0
        finish = ""
        while not finish:
            piece = self._pieces.get()
            if isinstance(piece, TailorError):
                raise piece
            piece = piece or AnswerPiece("", tokens, CANCELLED)
            tokens, finish = piece.tokens, piece.finish
            yield piece

    def cancel(self) -> None:
        self._future.cancel()

    async def _pump(self) -> None:
        tokens = 0
        async for output in self._outputs:
            part = output.outputs[0]
            if part.stop_reason == OVERFLOW:
                self._pieces.put(not_finite())
                return
            if part.finish_reason == FAILED:
                self._pieces.put(schema_given_up() if self._sampling.schema else engine_failed())
                return
            tokens += len(part.token_ids)
            finish = CANCELLED if part.finish_reason == ABORTED else part.finish_reason or ""
            self._pieces.put(AnswerPiece(part.text, tokens, finish, self._log_probabilities(part)))

    def _log_probabilities(self, part: Any) -> tuple[TokenLogProbability, ...]:
        if self._sampling.top_log_probabilities is None:
            return ()
        return tuple(
            self._token(token, likely) for token, likely in zip(part.token_ids, part.logprobs or (), strict=True)
        )

    def _token(self, token: int, logprobs: Mapping[int, Any]) -> TokenLogProbability:
        """vLLM gives the written token and the likeliest ones in one mapping, with ranks from 1."""
        likely = {
            index: LikelyToken(self._characters(index), float(logprob.logprob)) for index, logprob in logprobs.items()
        }
        ranked = sorted((logprob.rank, index) for index, logprob in logprobs.items())
        top = [likely[index] for rank, index in ranked if rank <= (self._sampling.top_log_probabilities or 0)]
        return TokenLogProbability(likely[token], tuple(top))

    def _end(self, future: "Future[None]") -> None:
        """Wake the reader, however the request ended: cancelled, even before it began, or with the engine."""
        failed = not future.cancelled() and future.exception() is not None
        self._pieces.put(engine_failed() if failed else None)


def engine_failed() -> Unavailable:
    return Unavailable(Reason.ENGINE_FAILED, "The engine could not answer. Retry.")
