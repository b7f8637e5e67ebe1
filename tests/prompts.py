"""Asks a base and its adapters in this process, as the suites ask models in inference: for tests and benches without an engine."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from services.evaluation.domain import BASE, Score
from services.evaluation.ports import Messages, SuiteAsker

# Rows at a time.
BATCH = 48


class LocalAsker(SuiteAsker):
    """Greedy answers of the base and of adapters by name. One request at a time."""

    def __init__(self, base: Path, adapters: Mapping[str, Path]) -> None:
        self._tokenizer: Any = AutoTokenizer.from_pretrained(base, padding_side="left")
        self._tokenizer.pad_token = self._tokenizer.pad_token or self._tokenizer.eos_token
        model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
        for name, folder in adapters.items():
            if isinstance(model, PeftModel):
                model.load_adapter(str(folder), name)
            else:
                model = PeftModel.from_pretrained(model, str(folder), name)
        self._model = model.eval()

    def answer(self, model: str, prompts: Sequence[Messages], max_tokens: int) -> list[str]:
        texts = [self._render(prompt) for prompt in prompts]
        answers: list[str] = []
        with self._use(model):
            for start in range(0, len(texts), BATCH):
                inputs = self._tokenizer(
                    texts[start : start + BATCH], return_tensors="pt", padding=True, add_special_tokens=False
                )
                tokens = self._model.generate(
                    **inputs, max_new_tokens=max_tokens, do_sample=False, pad_token_id=self._tokenizer.pad_token_id
                )
                new = tokens[:, inputs["input_ids"].shape[1] :]
                answers += self._tokenizer.batch_decode(new, skip_special_tokens=True)
        return answers

    def score(self, model: str, pairs: Sequence[tuple[Messages, str]]) -> list[Score]:
        with self._use(model):
            batches = (pairs[start : start + BATCH] for start in range(0, len(pairs), BATCH))
            return [score for batch in batches for score in self._score(batch)]

    def _score(self, pairs: Sequence[tuple[Messages, str]]) -> Iterator[Score]:
        """Of the completions' tokens and the ends of their turns, as inference scores them."""
        before = [self._encode(self._render(prompt)) for prompt, _ in pairs]
        after = [self._encode(completion + self._tokenizer.eos_token) for _, completion in pairs]
        whole = [first + second for first, second in zip(before, after, strict=True)]
        # The common beginning is computed once. A token that predicts the next one is left to each row.
        shared = max(0, min(_common(whole) - 1, min(map(len, whole)) - 2))
        of_all, of_each = self._predictions(whole, shared)
        for number, (first, row) in enumerate(zip(before, whole, strict=True)):
            start, end = len(first) - shared - 1, len(row) - shared - 1
            in_common = float(of_all[len(first) - 1 :].sum())
            yield Score(in_common + float(of_each[number, max(0, start) : end].sum()), len(row) - len(first))

    def _predictions(self, rows: Sequence[list[int]], shared: int) -> tuple[Any, Any]:
        """Log-probabilities: of the tokens 1 to `shared`, which all rows have, (tokens); and of each row's later ones, (rows, tokens)."""
        cache, of_all = None, torch.zeros(0)
        if shared:
            begin = torch.tensor([rows[0][: shared + 1]])
            output = self._model(begin[:, :-1], use_cache=True)
            of_all = _chosen(output.logits, begin[:, 1:])[0]
            cache = output.past_key_values
            cache.batch_repeat_interleave(len(rows))
        rest = [row[shared:] for row in rows]
        width = max(map(len, rest))
        # Padded on the right, where causal attention of the tokens before does not look.
        tokens = torch.tensor([row + [self._tokenizer.pad_token_id] * (width - len(row)) for row in rest])
        logits = self._model(tokens[:, :-1], past_key_values=cache, use_cache=True).logits
        return of_all, _chosen(logits, tokens[:, 1:])

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _render(self, prompt: Messages) -> str:
        messages = [{"role": role, "content": content} for role, content in prompt]
        return str(self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    @contextmanager
    def _use(self, model: str) -> Iterator[None]:
        if isinstance(self._model, PeftModel) and model != BASE:
            self._model.set_adapter(model)
        is_base = isinstance(self._model, PeftModel) and model == BASE
        with torch.inference_mode(), self._model.disable_adapter() if is_base else nullcontext():
            yield


def _common(rows: Sequence[Sequence[int]]) -> int:
    """The number of tokens with which all rows begin."""
    return sum(1 for _ in takewhile(lambda tokens: len(set(tokens)) == 1, zip(*rows, strict=False)))


def _chosen(logits: Any, tokens: Any) -> Any:
    """The log-probability of each token, by the logits (rows, tokens, vocabulary) before it."""
    logits = logits.float()
    return logits.gather(2, tokens[..., None])[..., 0] - logits.logsumexp(-1)
