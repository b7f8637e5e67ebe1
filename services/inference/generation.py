"""One answer from its admission to its draft."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace

from services.inference.adapter_cache import AdapterCache
from services.inference.adapters.anonymization import AnonymizationClient
from services.inference.adapters.drafts import DraftArchive
from services.inference.admission import Admission
from services.inference.compute_meter import ComputeMeter, ComputeShare
from services.inference.definitions import Definitions
from services.inference.deployments import Deployments
from services.inference.domain import (
    BASE,
    CANCELLED,
    FAILED,
    LENGTH,
    STOPPED,
    AnswerPiece,
    Caller,
    ChatMessage,
    Draft,
    GenerationRequest,
    PromptRecord,
    ServedModel,
    TokenLogProbability,
    Transcript,
    digest_prompt,
    digest_text,
    strip_system_prompt,
)
from services.inference.ports import (
    AnnounceCall,
    InferenceEngine,
    KeepText,
    PublishDraft,
    Stream,
)
from services.inference.private_prompts.hide import HiddenRequest
from services.inference.repeated_calls import RepeatedCalls, WholeAnswer
from services.inference.serving_table import ServingTable
from services.inference.split_stream import choose_markers, open_stream
from services.inference.validation import fit_max_tokens
from tailor.errors import Aborted, Reason, TailorError, Unavailable
from tailor.telemetry import ANSWER_TOKENS, FIRST_TOKEN_SECONDS

# Stands for candidates in the metrics.
CANDIDATE = "candidate"


@dataclass(frozen=True)
class ModelServer:
    """One base in its engine, the adapters in its slots, and the names that stand for them.

    `merged` is the digest of the adapter that the base's own weights serve, because no engine can load it; empty for none.
    """

    base: str
    engine: InferenceEngine
    cache: AdapterCache
    table: ServingTable
    announce_call: AnnounceCall
    meter: ComputeMeter
    merged: str = ""


@dataclass(frozen=True)
class DraftRecorder:
    """Publishes drafts and stores their texts. `digest_key` keys the digests of prompts and answers; `now` counts seconds."""

    publish: PublishDraft
    keep_text: KeepText
    digest_key: bytes
    new_id: Callable[[], str]
    now: Callable[[], float] = time.monotonic


@dataclass(frozen=True)
class Inference:
    """The service once its base is loaded."""

    models: ModelServer
    admission: Admission
    definitions: Definitions
    anonymizer: AnonymizationClient
    drafts: DraftRecorder
    archive: DraftArchive
    repeated_calls: RepeatedCalls = field(default_factory=RepeatedCalls)
    deployments: Deployments = field(default_factory=Deployments)


class ReadinessGate:
    """Closed until a model is ready."""

    def __init__(self) -> None:
        self._inference: Inference | None = None

    def open(self, inference: Inference) -> None:
        """Let calls through from now on."""
        self._inference = inference

    def inference(self) -> Inference:
        """Raises Unavailable while no model is ready."""
        if self._inference is None:
            raise Unavailable(Reason.NO_MODEL_READY, "The model is still loading. Retry.", retry_after_seconds=2.0)
        return self._inference


class Cancellation:
    """Carries a caller's cancel to a stream that may not have begun yet. Thread-safe."""

    def __init__(self) -> None:
        self.cancelled = False
        self._stream: Stream | None = None

    def attach(self, stream: Stream) -> None:
        """Let a cancel, also an earlier one, end this stream."""
        self._stream = stream
        if self.cancelled:
            stream.cancel()

    def cancel(self) -> None:
        """End the stream, now or as soon as it begins. Idempotent."""
        self.cancelled = True
        if self._stream is not None:
            self._stream.cancel()


def _ignore(answer: WholeAnswer | None) -> None:
    del answer


class AnswerStream:
    """An answer that is being generated: iterate over it once, or close it.

    It holds its adapter and its place until then, and publishes its draft at the end, however it ends. `stored_prompt` is set if the
    messages passed the barrier before: those of an earlier draft, or of a dataset's row.
    """

    def __init__(
        self,
        inference: Inference,
        caller: Caller,
        served: ServedModel,
        messages: tuple[ChatMessage, ...],
        stored_prompt: PromptRecord | None = None,
    ) -> None:
        self.draft_id = inference.drafts.new_id()
        self.served = served
        self.text = ""
        self.thought = ""
        self.log_probabilities: tuple[TokenLogProbability, ...] = ()
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.finish_reason = CANCELLED
        self.moment = time.time()
        # Called once at the end, with the answer if it is whole and its draft is published.
        self.on_close: Callable[[WholeAnswer | None], None] = _ignore
        self._model_text = ""
        self._models = inference.models
        self._admission = inference.admission
        self._drafts = inference.drafts
        self._caller = caller
        self._messages = messages
        self._stored_prompt = stored_prompt
        self._started = self._drafts.now()
        self._first_token_seconds = 0.0
        self._resources = ExitStack()
        self._stream: Stream | None = None
        self._compute: ComputeShare | None = None

    def begin(
        self, request: GenerationRequest, cancellation: Cancellation, hidden: HiddenRequest | None = None
    ) -> None:
        """Wait for a place and the adapter, then start the generation. On an error nothing stays held.

        If the adapter cannot be had, a failed draft is published. The personal values of a hidden request are in the
        text that the caller gets, and are forgotten when the answer is closed.
        """
        engine = self._models.engine
        markers = choose_markers(engine, request.sampling)
        prompt = engine.encode(self._messages, thinking=markers is not None)
        self.prompt_tokens = len(prompt)
        max_tokens = fit_max_tokens(len(prompt), request.sampling, engine.context_length)
        with self._models.announce_call(), ExitStack() as resources:
            resources.enter_context(
                self._admission.place(self._caller.key_id or self._caller.name, lambda: cancellation.cancelled)
            )
            if request.sampling.schema:
                # It holds the caller's place, because it is the caller's work.
                engine.check_schema(request.sampling.schema, lambda: cancellation.cancelled)
            adapter = resources.enter_context(self._adapter(cancellation))
            self._compute = self._models.meter.start()
            resources.callback(self._compute.end)
            sampling = replace(request.sampling, max_tokens=max_tokens)
            stream = open_stream(engine, prompt, adapter, sampling, markers)
            # The cancellation outlives the answer, so it gets the engine's stream only, without the personal values.
            cancellation.attach(stream)
            self._stream = hidden.open(stream) if hidden else stream
            self._resources = resources.pop_all()

    def __iter__(self) -> Iterator[AnswerPiece]:
        """Yield the pieces as they are generated; errors as in `Stream`."""
        broken = True
        try:
            for piece in self._read():
                self._add(piece)
                # While the reader has the piece, an end of the iteration comes from the reader and is not a failure.
                broken = False
                yield piece
                broken = True
            broken = False
        finally:
            if broken:
                self.finish_reason = FAILED
            self.close()

    def close(self) -> None:
        """Stop the generation, release what is held and publish the draft. Idempotent."""
        stream, self._stream = self._stream, None
        if stream is None:
            return
        whole = None
        try:
            stream.cancel()
            self._resources.close()
            self._count_tokens()
            if self._leaves_draft:
                draft = self._draft()
                self._drafts.publish(draft)
                self._drafts.keep_text(draft, self._transcript(draft))
            whole = self._whole()
        finally:
            self.on_close(whole)

    def _read(self) -> Iterator[AnswerPiece]:
        """The pieces of the stream. While the reader has one, it does not wait for the model."""
        pieces = iter(self._stream or ())
        while True:
            with self._models.announce_call():
                piece = next(pieces, None)
            if piece is None:
                return
            yield piece

    @contextmanager
    def _adapter(self, cancellation: Cancellation) -> Iterator[str]:
        """Hold the adapter. If it cannot be had, publish a failed draft, unless the caller went away."""
        with ExitStack() as resources:
            try:
                using = self._models.cache.using(self.served.adapter, lambda: cancellation.cancelled)
                adapter = resources.enter_context(using)
            except Aborted:
                raise
            except TailorError:
                self.finish_reason = FAILED
                if self._leaves_draft:
                    self._drafts.publish(self._draft())
                raise
            yield adapter

    def _add(self, piece: AnswerPiece) -> None:
        if piece.tokens and not self.completion_tokens:
            self._first_token_seconds = self._drafts.now() - self._started
            FIRST_TOKEN_SECONDS.labels(*self._labels).observe(self._first_token_seconds)
        self.text += piece.text
        self.thought += piece.thought
        self._model_text += piece.text if piece.model_text is None else piece.model_text
        self.log_probabilities += piece.log_probabilities
        self.completion_tokens = piece.tokens
        self.finish_reason = piece.finish or self.finish_reason
        if piece.finish and self._compute:
            # The reader may keep the last piece for a while.
            self._compute.end()

    def _count_tokens(self) -> None:
        ANSWER_TOKENS.labels(*self._labels, "prompt").inc(self.prompt_tokens)
        ANSWER_TOKENS.labels(*self._labels, "completion").inc(self.completion_tokens)

    @property
    def _labels(self) -> tuple[str, str]:
        """The specialist and who asks, for the metrics. Keys count together: they are too many for labels."""
        unnamed = CANDIDATE if self.served.adapter else BASE
        return self.served.specialist or unnamed, self._caller.kind if self._caller.key_id else self._caller.name

    def _whole(self) -> WholeAnswer | None:
        if self.finish_reason not in (STOPPED, LENGTH):
            return None
        return WholeAnswer(
            draft_id=self.draft_id,
            served=self.served,
            text=self.text,
            finish_reason=self.finish_reason,
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            moment=self.moment,
            log_probabilities=self.log_probabilities,
            thought=self.thought,
        )

    @property
    def _leaves_draft(self) -> bool:
        return self._caller.leaves_drafts or bool(self._stored_prompt and self._stored_prompt.is_drawn)

    def _transcript(self, draft: Draft) -> Transcript:
        is_anonymized = self._stored_prompt is not None
        return Transcript(
            self._caller_messages, self._model_text, anonymized=is_anonymized, is_drawn=draft.prompt.is_drawn
        )

    @property
    def _caller_messages(self) -> tuple[ChatMessage, ...]:
        return strip_system_prompt(self._messages, self.served.system_prompt)

    def _draft(self) -> Draft:
        key = self._drafts.digest_key
        return Draft(
            draft_id=self.draft_id,
            served=self.served,
            key_id=self._caller.key_id,
            prompt=self._stored_prompt or PromptRecord(digest_prompt(key, self._caller_messages)),
            answer_digest=digest_text(key, self._model_text),
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            finish_reason=self.finish_reason,
            first_token_seconds=self._first_token_seconds,
            seconds=self._drafts.now() - self._started,
            compute_seconds=self._compute.seconds if self._compute else 0.0,
            compute_device=self._compute.device if self._compute else "",
        )


# An answer that is being generated, or that of an earlier call with the same id.
Answer = AnswerStream | WholeAnswer
