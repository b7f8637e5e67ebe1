"""An answer on its way from vLLM's own thread to the caller's."""

import queue
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Future
from typing import Any

from services.inference.adapters.grammar import schema_given_up
from services.inference.domain import CANCELLED, LikelyToken, Piece, Sampling, TokenLogProbability
from tailor.errors import Reason, TailorError, Unavailable

# vLLM's finish reasons that are not ours.
ABORTED = "abort"
FAILED = "error"


class VllmStream:
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
        self._pieces: queue.SimpleQueue[Piece | TailorError | None] = queue.SimpleQueue()
        self._future = run(self._pump())
        self._future.add_done_callback(self._end)

    def __iter__(self) -> Iterator[Piece]:
        """The pieces; Unavailable if the engine dies, FailedPrecondition where it gives the schema up."""
        tokens = 0
        finish = ""
        while not finish:
            piece = self._pieces.get()
            if isinstance(piece, TailorError):
                raise piece
            piece = piece or Piece("", tokens, CANCELLED)
            tokens, finish = piece.tokens, piece.finish
            yield piece

    def cancel(self) -> None:
        """Abort the request in the engine."""
        self._future.cancel()

    async def _pump(self) -> None:
        tokens = 0
        async for output in self._outputs:
            part = output.outputs[0]
            if part.finish_reason == FAILED:
                self._pieces.put(schema_given_up() if self._sampling.schema else _failed())
                return
            tokens += len(part.token_ids)
            finish = CANCELLED if part.finish_reason == ABORTED else part.finish_reason or ""
            self._pieces.put(Piece(part.text, tokens, finish, self._told(part)))

    def _told(self, part: Any) -> tuple[TokenLogProbability, ...]:
        if self._sampling.top_log_probabilities is None:
            return ()
        return tuple(
            self._token(token, found) for token, found in zip(part.token_ids, part.logprobs or (), strict=True)
        )

    def _token(self, token: int, found: Mapping[int, Any]) -> TokenLogProbability:
        """vLLM gives the written token and the likeliest in one mapping, by rank from 1."""
        likely = {number: LikelyToken(self._characters(number), float(one.logprob)) for number, one in found.items()}
        ranked = sorted((one.rank, number) for number, one in found.items())
        top = [likely[number] for rank, number in ranked if rank <= (self._sampling.top_log_probabilities or 0)]
        return TokenLogProbability(likely[token], tuple(top))

    def _end(self, future: "Future[None]") -> None:
        """Wake the reader, however it ended: cancelled even before it began, or with the engine."""
        failed = not future.cancelled() and future.exception() is not None
        self._pieces.put(_failed() if failed else None)


def _failed() -> Unavailable:
    return Unavailable(Reason.ENGINE_FAILED, "The engine could not answer; try again.")
