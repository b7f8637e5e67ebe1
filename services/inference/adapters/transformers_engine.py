"""The engine on transformers and peft, where vLLM has no wheel: streams take turns, token by token."""

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from services.inference.adapters.chat import ChatTemplate
from services.inference.adapters.decoding import Detokenizer
from services.inference.adapters.grammar import Grammar, Grammars
from services.inference.domain import (
    CANCELLED,
    LENGTH,
    STOPPED,
    LikelyToken,
    Piece,
    Sampling,
    Score,
    TokenLogProbability,
    Turn,
)
from tailor.errors import FailedPrecondition, InvalidArgument, Reason
from tailor.hardware import computes_in_bf16

# Never used; it gives the model its adapter layers before the first real adapter comes.
EMPTY = "empty"
# A lower temperature counts as this one, as with vLLM: logits over a smaller number would leave what a float can hold.
COLDEST = 0.01


class TransformersEngine:
    """A base and its adapters. One lock is held for a token's time, so that streams, loads and scores go on beside each other."""

    def __init__(self, folder: Path, *, context_length: int, threads: int) -> None:
        torch.set_num_threads(threads)
        self._chat = ChatTemplate(folder)
        dtype = torch.bfloat16 if computes_in_bf16() else torch.float32
        base = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, local_files_only=True, trust_remote_code=False, use_safetensors=True
        )
        self.context_length = min(context_length, int(base.config.max_position_embeddings))
        self._stops = _end_tokens(base, self._chat.tokenizer)
        self._grammars = Grammars(self._chat.tokenizer, int(base.config.vocab_size))
        empty = LoraConfig(r=1, target_modules="all-linear", task_type="CAUSAL_LM")
        self._model: Any = get_peft_model(base, empty, adapter_name=EMPTY)
        self._model.eval()
        self._model.base_model.disable_adapter_layers()
        self._active = ""
        self._lock = threading.Lock()

    def encode(self, turns: Sequence[Turn]) -> tuple[int, ...]:
        """The prompt's tokens."""
        return self._chat.encode(turns)

    def check_schema(self, schema: str) -> None:
        """Compile it once for the answer that never comes."""
        self._grammars.compile(schema)

    def load(self, digest: str, folder: Path) -> None:
        """Load a verified adapter between two tokens of the running streams."""
        with self._lock:
            try:
                self._model.load_adapter(str(folder), adapter_name=digest, is_trainable=False, low_cpu_mem_usage=True)
            except (ValueError, RuntimeError, OSError, KeyError) as error:
                raise FailedPrecondition(
                    Reason.ADAPTER_DOES_NOT_LOAD, f"The engine refuses the adapter ({type(error).__name__})."
                ) from None
            self._model.eval()

    def unload(self, digest: str) -> None:
        """Free an adapter's memory."""
        with self._lock:
            self._activate("")
            self._model.delete_adapter(digest)

    def generate(self, prompt: tuple[int, ...], adapter: str, sampling: Sampling) -> "TransformersStream":
        """Begin to answer; the tokens are made in the reader's thread."""
        return TransformersStream(self, prompt, adapter, sampling)

    def score(self, turns: Sequence[Turn], completion: str, adapter: str) -> Score:
        """Score an answer by one forward pass."""
        prompt, answer = self._chat.encode_answered(turns, completion)
        return self.score_tokens(prompt + answer, len(prompt), adapter)

    def score_tokens(self, tokens: tuple[int, ...], prompt_length: int, adapter: str) -> Score:
        """Score the tokens from `prompt_length` on by one forward pass."""
        self._chat.check(tokens)
        answer = tokens[prompt_length:]
        if len(tokens) > self.context_length:
            raise InvalidArgument(
                Reason.ROW_TOO_LONG, f"Prompt and answer have {len(tokens)} tokens; {self.context_length} fit."
            )
        with self._lock, torch.inference_mode():
            self._activate(adapter)
            logits = self._model(input_ids=torch.tensor([tokens[:-1]]), use_cache=False).logits[0, prompt_length - 1 :]
        chosen = torch.log_softmax(logits.float(), dim=-1).gather(1, torch.tensor(answer).unsqueeze(1))
        return Score(float(chosen.double().sum()), len(answer))

    def step(self, tokens: Sequence[int], cache: Any, adapter: str) -> tuple[torch.Tensor, Any]:
        """Read tokens after those in the cache; the logits of the next token (vocabulary,) and the new cache."""
        with self._lock, torch.inference_mode():
            self._activate(adapter)
            output = self._model(input_ids=torch.tensor([list(tokens)]), past_key_values=cache, use_cache=True)
        return output.logits[0, -1].float(), output.past_key_values

    def ends(self, token: int) -> bool:
        """True for a token that ends the turn."""
        return token in self._stops

    def detokenizer(self, stop: tuple[str, ...]) -> Detokenizer:
        """A fresh detokenizer."""
        return Detokenizer(lambda tokens: str(self._chat.tokenizer.decode(tokens, skip_special_tokens=True)), stop)

    def grammar(self, schema: str) -> Grammar | None:
        """A fresh grammar; None without a schema."""
        return self._grammars.compile(schema) if schema else None

    def told(self, logits: torch.Tensor, token: int, top: int | None) -> tuple[TokenLogProbability, ...]:
        """The log-probability of a token and of the likeliest in its place, out of logits (vocabulary,); nothing for None."""
        if top is None:
            return ()
        known = torch.log_softmax(logits, dim=-1)
        best = known.topk(top).indices.tolist()
        likely = {place: LikelyToken(self._chat.token(place), float(known[place])) for place in (token, *best)}
        return (TokenLogProbability(likely[token], tuple(likely[place] for place in best)),)

    def watch(self, stop: threading.Event) -> None:
        """Wait until told to stop; this engine cannot die alone."""
        stop.wait()

    def close(self) -> None:
        """Nothing was started."""

    def _activate(self, adapter: str) -> None:
        """Switch to an adapter, or to the base; peft walks all layers for it, so only where it changes."""
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


class TransformersStream:
    """An answer that is written while it is read."""

    def __init__(self, engine: TransformersEngine, prompt: tuple[int, ...], adapter: str, sampling: Sampling) -> None:
        self._engine = engine
        self._prompt = prompt
        self._adapter = adapter
        self._sampling = sampling
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """End after the token being made."""
        self._cancelled.set()

    def __iter__(self) -> Iterator[Piece]:
        """The pieces."""
        writer = self._engine.detokenizer(self._sampling.stop)
        draws = _Draws(self._engine, self._prompt, self._sampling)
        tokens: Sequence[int] = self._prompt
        cache = None
        for count in range(1, self._sampling.max_tokens + 1):
            if self._cancelled.is_set():
                yield Piece("", count - 1, CANCELLED)
                return
            logits, cache = self._engine.step(tokens, cache, self._adapter)
            token = draws.next(logits)
            told = self._engine.told(logits, token, self._sampling.top_log_probabilities)
            if self._engine.ends(token):
                yield Piece(writer.rest(), count, STOPPED, told)
                return
            text, stopped = writer.add(token)
            if stopped:
                yield Piece(text, count, STOPPED, told)
                return
            yield Piece(text, count, log_probabilities=told)
            tokens = (token,)
        yield Piece(writer.rest(), self._sampling.max_tokens, LENGTH)


class _Draws:
    """Draws the tokens of one answer."""

    def __init__(self, engine: TransformersEngine, prompt: tuple[int, ...], sampling: Sampling) -> None:
        self._sampling = sampling
        self._seen = list(prompt)
        self._grammar = engine.grammar(sampling.schema)
        self._generator = torch.Generator()
        if sampling.seed is None:
            # A new generator has a fixed seed.
            self._generator.seed()
        else:
            self._generator.manual_seed(sampling.seed)

    def next(self, logits: torch.Tensor) -> int:
        """The next token out of logits (vocabulary,)."""
        logits = penalised(logits, self._seen, self._sampling.repetition_penalty)
        token = draw(self._grammar.masked(logits) if self._grammar else logits, self._sampling, self._generator)
        if self._grammar:
            self._grammar.take(token)
        self._seen.append(token)
        return token


def penalised(logits: torch.Tensor, seen: Sequence[int], penalty: float) -> torch.Tensor:
    """Logits (vocabulary,) with those of seen tokens made smaller: divided where positive, multiplied where negative (CTRL)."""
    if penalty == 1:
        return logits
    places = torch.tensor(sorted(set(seen)))
    held = logits[places]
    return logits.index_copy(0, places, torch.where(held > 0, held / penalty, held * penalty))


def draw(logits: torch.Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    """The next token out of logits (vocabulary,): the likeliest at temperature 0, else one of the nucleus."""
    if sampling.temperature == 0:
        return int(logits.argmax())
    ordered, order = torch.softmax(logits / max(sampling.temperature, COLDEST), dim=-1).sort(descending=True)
    outside = ordered.cumsum(0) - ordered >= sampling.top_p
    # A nucleus too small for a float is still the likeliest token.
    outside[0] = False
    place = torch.multinomial(ordered.masked_fill(outside, 0.0), 1, generator=generator)
    return int(order[place])


def _end_tokens(model: PeftModel, tokenizer: Any) -> frozenset[int]:
    configured = model.generation_config.eos_token_id
    listed = configured if isinstance(configured, list) else [configured]
    return frozenset(token for token in (*listed, tokenizer.eos_token_id) if token is not None)
