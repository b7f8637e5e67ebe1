"""One answer on its way: it holds its place and its adapter until it ends, and states its draft."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from services.inference.checks import fit
from services.inference.domain import (
    CANCELLED,
    FAILED,
    Archive,
    Ask,
    Caller,
    Draft,
    Drafts,
    Engine,
    Piece,
    Reports,
    Said,
    Served,
    Stream,
    Texts,
    TokenLogProbability,
    Turn,
    Turns,
    keyed_digest,
    prompt_digest,
    without_system,
)
from services.inference.private import HiddenAsk, Private, PromptBarrier
from services.inference.serving import Admission, Shelf, Table
from tailor.errors import Aborted, TailorError


@dataclass(frozen=True)
class Inference:
    """What the handlers work with. `digest_key` keys the digests of prompts and answers; `now` counts seconds."""

    base: str
    engine: Engine
    shelf: Shelf
    table: Table
    admission: Admission
    turns: Turns
    drafts: Drafts
    texts: Texts
    archive: Archive
    reports: Reports
    private: Private
    barrier: PromptBarrier
    digest_key: bytes
    new_draft_id: Callable[[], str]
    now: Callable[[], float] = time.monotonic


class Cancellation:
    """Carries a caller's cancel to a stream that may not have begun. Thread-safe."""

    def __init__(self) -> None:
        self.cancelled = False
        self._stream: Stream | None = None

    def attach(self, stream: Stream) -> None:
        """From now on a cancel ends this stream."""
        self._stream = stream
        if self.cancelled:
            stream.cancel()

    def cancel(self) -> None:
        """End the stream, now or as soon as it begins."""
        self.cancelled = True
        if self._stream is not None:
            self._stream.cancel()


class Answer:
    """An answer on its way: iterate it once, or close it. It keeps its adapter and its place until then, and states its draft at the end,
    however it ends."""

    def __init__(self, inference: Inference, caller: Caller, served: Served, turns: tuple[Turn, ...]) -> None:
        self.draft_id = inference.new_draft_id()
        self.served = served
        self.text = ""
        self._seen = ""
        self.log_probabilities: tuple[TokenLogProbability, ...] = ()
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.finish_reason = CANCELLED
        self._inference = inference
        self._caller = caller
        self._turns = turns
        self._started = inference.now()
        self._first_token_seconds = 0.0
        self._held = ExitStack()
        self._stream: Stream | None = None

    def begin(self, ask: Ask, cancellation: Cancellation, hidden: HiddenAsk | None = None) -> None:
        """Wait for a place and for the adapter, and start the generation; on an error nothing is held. An adapter that cannot be had is
        stated as a failed draft.

        What a hidden question hides stands in the text that is told, and is forgotten when the answer is closed.
        """
        inference = self._inference
        prompt = inference.engine.encode(self._turns)
        self.prompt_tokens = len(prompt)
        room = fit(len(prompt), ask.sampling, inference.engine.context_length)
        if ask.sampling.schema:
            inference.engine.check_schema(ask.sampling.schema)
        with ExitStack() as held:
            held.enter_context(inference.admission.place(lambda: cancellation.cancelled))
            adapter = held.enter_context(self._adapter(cancellation))
            held.enter_context(inference.turns.take())
            stream = inference.engine.generate(prompt, adapter, replace(ask.sampling, max_tokens=room))
            # The caller's cancel outlives the answer: it knows the engine's stream alone.
            cancellation.attach(stream)
            self._stream = hidden.open(stream) if hidden else stream
            self._held = held.pop_all()

    def __iter__(self) -> Iterator[Piece]:
        """The pieces as they come; Unavailable if the engine dies, FailedPrecondition where it gives a schema up."""
        broken = True
        try:
            for piece in self._stream or ():
                self._take(piece)
                # While the reader has a piece, what ends the answer is the reader, and no failure.
                broken = False
                yield piece
                broken = True
            broken = False
        finally:
            if broken:
                self.finish_reason = FAILED
            self.close()

    def close(self) -> None:
        """Stop the generation, let go of what is held, state the draft; the second time does nothing."""
        stream, self._stream = self._stream, None
        if stream is None:
            return
        stream.cancel()
        self._held.close()
        if self._caller.leaves_drafts:
            draft = self._draft()
            self._inference.drafts.add(draft)
            self._inference.texts.keep(draft, Said(self._asked, self._seen))

    @contextmanager
    def _adapter(self, cancellation: Cancellation) -> Iterator[str]:
        """Hold the adapter; what cannot be had fails the answer, but for a caller who does not wait for it."""
        with ExitStack() as held:
            try:
                using = self._inference.shelf.using(self.served.adapter, lambda: cancellation.cancelled)
                adapter = held.enter_context(using)
            except Aborted:
                raise
            except TailorError:
                self.finish_reason = FAILED
                if self._caller.leaves_drafts:
                    self._inference.drafts.add(self._draft())
                raise
            yield adapter

    def _take(self, piece: Piece) -> None:
        if piece.tokens and not self.completion_tokens:
            self._first_token_seconds = self._inference.now() - self._started
        self.text += piece.text
        self._seen += piece.text if piece.seen is None else piece.seen
        self.log_probabilities += piece.log_probabilities
        self.completion_tokens = piece.tokens
        self.finish_reason = piece.finish or self.finish_reason

    @property
    def _asked(self) -> tuple[Turn, ...]:
        """The chat without the specialist's own system prompt."""
        return without_system(self._turns, self.served.system_prompt)

    def _draft(self) -> Draft:
        key = self._inference.digest_key
        return Draft(
            draft_id=self.draft_id,
            served=self.served,
            key_id=self._caller.key_id,
            prompt_digest=prompt_digest(key, self._asked),
            answer_digest=keyed_digest(key, self._seen),
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            finish_reason=self.finish_reason,
            first_token_seconds=self._first_token_seconds,
            seconds=self._inference.now() - self._started,
        )
