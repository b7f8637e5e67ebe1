"""The engine on transformers and peft, for machines without a wheel of vLLM. Concurrent streams alternate, token by token."""

import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from services.inference.domain import (
    CANCELLED,
    LENGTH,
    STOPPED,
    AnswerPiece,
    ChatMessage,
    LikelyToken,
    Sampling,
    Score,
    TokenLogProbability,
)
from services.inference.engines.chat import ChatTemplate
from services.inference.engines.finite import not_finite
from services.inference.engines.grammar import Grammar, Grammars
from services.inference.ports import InferenceEngine, Stream
from tailor.compute_lock import awaiting_turns
from tailor.errors import FailedPrecondition, InvalidArgument, Reason
from tailor.hardware import computes_in_bf16, name_cores
from tailor.thoughts import count_possible

# The text of a token that is a part of a character.
PARTIAL = "�"


class Decoded(NamedTuple):
    """Characters that are certain by now, and True if a stop text was reached."""

    text: str
    stopped: bool


class Detokenizer:
    """Decodes one answer: whole characters only, and nothing of a stop text."""

    def __init__(self, decode: Callable[[Sequence[int]], str], stop: tuple[str, ...]) -> None:
        self._decode = decode
        self._stop = stop
        self._tokens: list[int] = []
        self._sent = 0

    def add(self, token: int) -> Decoded:
        """Add a token, and return the characters that are certain by now."""
        self._tokens.append(token)
        text = self._decode(self._tokens)
        if text.endswith(PARTIAL):
            return Decoded("", stopped=False)
        positions = [position for position in (text.find(stop, self._sent) for stop in self._stop) if position >= 0]
        if positions:
            return Decoded(self._release(text, min(positions)), stopped=True)
        return Decoded(self._release(text, len(text) - count_possible(text, self._stop)), stopped=False)

    def rest(self) -> str:
        """The characters that were held back, when no more tokens follow."""
        text = self._decode(self._tokens)
        return self._release(text, len(text))

    def _release(self, text: str, end: int) -> str:
        part = text[self._sent : end]
        self._sent = max(self._sent, end)
        return part


# Never used; it gives the model its adapter layers before the first real adapter.
EMPTY = "empty"
# Lower temperatures count as this one, as in vLLM: logits divided by a smaller number would overflow a float.
MIN_TEMPERATURE = 0.01


class TransformersEngine(InferenceEngine):
    """A base and its adapters. Its lock is held for one token at a time, so that streams, loads and scores alternate."""

    def __init__(
        self,
        folder: Path,
        *,
        targets: Collection[str],
        context_length: int,
        threads: int,
        compute_lock: Path | None = None,
    ) -> None:
        # Called before each step that gives nobody a first token.
        self.await_turn = awaiting_turns(compute_lock)
        torch.set_num_threads(threads)
        self._chat = ChatTemplate(folder)
        self.thought = self._chat.thought
        dtype = torch.bfloat16 if computes_in_bf16() else torch.float32
        base = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, local_files_only=True, trust_remote_code=False, use_safetensors=True
        )
        self.device = name_cores()
        self.context_length = min(context_length, int(base.config.max_position_embeddings))
        self._end_tokens = frozenset(self._chat.ends(base.generation_config.eos_token_id))
        self._grammars = Grammars(self._chat.tokenizer, folder, int(base.config.vocab_size))
        empty = LoraConfig(r=1, target_modules=list(targets) or "all-linear", task_type="CAUSAL_LM")
        self._model: Any = get_peft_model(base, empty, adapter_name=EMPTY)
        self._model.eval()
        self._model.base_model.disable_adapter_layers()
        self._active = ""
        self._lock = threading.Lock()

    def encode(self, messages: Sequence[ChatMessage], *, thinking: bool = False) -> tuple[int, ...]:
        return self._chat.encode(messages, thinking=thinking)

    def check_schema(self, schema: str, cancelled: Callable[[], bool]) -> None:
        self._grammars.check(schema, cancelled)

    def load(self, digest: str, folder: Path) -> None:
        """Load a verified adapter between two tokens of the running streams."""
        with self._lock:
            try:
                self._model.load_adapter(str(folder), adapter_name=digest, is_trainable=False, low_cpu_mem_usage=True)
            except (ValueError, RuntimeError, OSError, KeyError) as error:
                raise FailedPrecondition(
                    Reason.ADAPTER_DOES_NOT_LOAD, f"The engine cannot load the adapter ({type(error).__name__})."
                ) from None
            self._model.eval()

    def unload(self, digest: str) -> None:
        with self._lock:
            self._activate("")
            self._model.delete_adapter(digest)

    def generate(self, prompt: tuple[int, ...], adapter: str, sampling: Sampling) -> "TransformersStream":
        """Start an answer; its tokens are generated in the reader's thread."""
        return TransformersStream(self, prompt, adapter, sampling)

    def score(self, messages: Sequence[ChatMessage], completion: str, adapter: str) -> Score:
        prompt, answer = self._chat.encode_answered(messages, completion)
        return self.score_tokens(prompt + answer, len(prompt), adapter)

    def score_tokens(self, tokens: tuple[int, ...], prompt_length: int, adapter: str) -> Score:
        """Score the tokens from `prompt_length` on by one forward pass."""
        self._chat.check(tokens)
        answer = tokens[prompt_length:]
        if len(tokens) > self.context_length:
            raise InvalidArgument(
                Reason.ROW_TOO_LONG,
                f"Prompt and answer have {len(tokens)} tokens; at most {self.context_length} fit.",
            )
        self.await_turn()
        with self._lock, torch.inference_mode():
            self._activate(adapter)
            output = self._model(
                input_ids=torch.tensor([tokens[:-1]]), use_cache=False
            )  # logits (1, n - 1, vocabulary)
            logits = output.logits[0, prompt_length - 1 :]  # (answer, vocabulary)
        check_logits(logits)
        chosen = torch.log_softmax(logits.float(), dim=-1).gather(1, torch.tensor(answer).unsqueeze(1))  # (answer, 1)
        return Score(float(chosen.double().sum()), len(answer))

    def step(self, tokens: Sequence[int], cache: Any, adapter: str) -> tuple[torch.Tensor, Any]:
        """Read tokens after those in the cache. Returns the logits of the next token (vocabulary,) and the new cache.

        Raises FailedPrecondition (LOGITS_NOT_FINITE).
        """
        with self._lock, torch.inference_mode():
            self._activate(adapter)
            output = self._model(input_ids=torch.tensor([list(tokens)]), past_key_values=cache, use_cache=True)
        logits = output.logits[0, -1].float()
        check_logits(logits)
        return logits, output.past_key_values

    def is_end(self, token: int) -> bool:
        """True for a token that ends the turn."""
        return token in self._end_tokens

    def make_detokenizer(self, sampling: Sampling) -> Detokenizer:
        decode = partial(self._chat.tokenizer.decode, skip_special_tokens=not sampling.with_control_tokens)
        return Detokenizer(lambda tokens: str(decode(tokens)), sampling.stop)

    def make_grammar(self, schema: str) -> Grammar | None:
        return self._grammars.compile(schema) if schema else None

    def log_probabilities(self, logits: torch.Tensor, token: int, top: int | None) -> tuple[TokenLogProbability, ...]:
        """The log-probability of a token and of the `top` likeliest, from logits (vocabulary,); empty for None."""
        if top is None:
            return ()
        known = torch.log_softmax(logits, dim=-1)
        best = known.topk(top).indices.tolist()
        likely = {index: LikelyToken(self._chat.token(index), float(known[index])) for index in (token, *best)}
        return (TokenLogProbability(likely[token], tuple(likely[index] for index in best)),)

    def watch(self, stop: threading.Event, beat: Callable[[], None]) -> None:
        """Block until `stop` is set; this engine cannot die before its process, and promises no beat."""
        del beat
        stop.wait()

    def close(self) -> None:
        """Does nothing, because nothing was started."""

    def _activate(self, adapter: str) -> None:
        """Switch to an adapter, or to the base. peft walks all layers for that, so only switch if it changes."""
        if adapter == self._active:
            return
        if adapter:
            self._model.set_adapter(adapter, inference_mode=True)
        if bool(adapter) != bool(self._active):
            change = (
                self._model.base_model.enable_adapter_layers
                if adapter
                else self._model.base_model.disable_adapter_layers
            )
            change()
        self._active = adapter


class TransformersStream(Stream):
    """An answer that is generated while it is read."""

    def __init__(self, engine: TransformersEngine, prompt: tuple[int, ...], adapter: str, sampling: Sampling) -> None:
        self._engine = engine
        self._prompt = prompt
        self._adapter = adapter
        self._sampling = sampling
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """End after the token that is being generated."""
        self._cancelled.set()

    def __iter__(self) -> Iterator[AnswerPiece]:
        detokenizer = self._engine.make_detokenizer(self._sampling)
        sampler = _Sampler(self._engine, self._prompt, self._sampling)
        tokens: Sequence[int] = self._prompt
        cache = None
        for count in range(1, self._sampling.max_tokens + 1):
            if self._cancelled.is_set():
                yield AnswerPiece("", count - 1, CANCELLED)
                return
            if cache:
                self._engine.await_turn()
            logits, cache = self._engine.step(tokens, cache, self._adapter)
            token = sampler.next(logits)
            log_probabilities = self._engine.log_probabilities(logits, token, self._sampling.top_log_probabilities)
            if self._engine.is_end(token):
                yield AnswerPiece(detokenizer.rest(), count, STOPPED, log_probabilities)
                return
            text, stopped = detokenizer.add(token)
            if stopped:
                yield AnswerPiece(text, count, STOPPED, log_probabilities)
                return
            yield AnswerPiece(text, count, log_probabilities=log_probabilities)
            tokens = (token,)
        yield AnswerPiece(detokenizer.rest(), self._sampling.max_tokens, LENGTH)


class _Sampler:
    """Draws the tokens of one answer."""

    def __init__(self, engine: TransformersEngine, prompt: tuple[int, ...], sampling: Sampling) -> None:
        self._sampling = sampling
        self._seen = list(prompt)
        self._grammar = engine.make_grammar(sampling.schema)
        self._generator = torch.Generator()
        if sampling.seed is None:
            # A new generator has a fixed seed.
            self._generator.seed()
        else:
            self._generator.manual_seed(sampling.seed)

    def next(self, logits: torch.Tensor) -> int:
        """Draw the next token from logits (vocabulary,)."""
        logits = penalise(logits, self._seen, self._sampling.repetition_penalty)
        token = draw(self._grammar.mask(logits) if self._grammar else logits, self._sampling, self._generator)
        if self._grammar:
            self._grammar.advance(token)
        self._seen.append(token)
        return token


def check_logits(logits: torch.Tensor) -> None:
    """Raise FailedPrecondition (LOGITS_NOT_FINITE) if a logit is infinite or NaN: a token drawn from them would mean nothing."""
    if not bool(torch.isfinite(logits).all()):
        raise not_finite()


def penalise(logits: torch.Tensor, seen: Sequence[int], penalty: float) -> torch.Tensor:
    """Lower the logits (vocabulary,) of tokens that occurred: positive ones are divided by the penalty, negative ones multiplied.

    Source: CTRL (Keskar et al. 2019), section 4.1, in the form of transformers and vLLM, which treats negative logits separately.
    """
    if penalty == 1:
        return logits
    indices = torch.tensor(sorted(set(seen)))
    chosen = logits[indices]
    return logits.index_copy(0, indices, torch.where(chosen > 0, chosen / penalty, chosen * penalty))


def draw(logits: torch.Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    """Draw a token from logits (vocabulary,): the likeliest at temperature 0, otherwise one of the nucleus.

    Source: nucleus sampling (Holtzman et al. 2020).
    """
    if sampling.temperature == 0:
        return int(logits.argmax())
    ordered, order = torch.softmax(logits / max(sampling.temperature, MIN_TEMPERATURE), dim=-1).sort(descending=True)
    outside = ordered.cumsum(0) - ordered >= sampling.top_p
    # Even a nucleus smaller than a float can express contains the likeliest token.
    outside[0] = False
    index = torch.multinomial(ordered.masked_fill(outside, 0.0), 1, generator=generator)
    return int(order[index])
