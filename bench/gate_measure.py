"""Scores and answers of every adapter on the held-out rows, once; and the figures of any sample of these rows by evaluation's own code."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from bench.gate_adapters import GOOD, HALF_SCALE, GateHouse, Variant, train
from bench.training_house import recipe
from services.evaluation.baselines.examples import choose_examples
from services.evaluation.baselines.prompts import with_examples
from services.evaluation.domain import (
    BASE,
    FEW_SHOT,
    Answer,
    HeldOutRow,
    HeldOutSet,
    ModelResult,
    Score,
    SpecialistTerms,
)
from services.evaluation.figures import MeasuredFigures, measure_all
from services.evaluation.metrics.context import MetricContext
from services.evaluation.ports import Messages
from services.synthetic.domain import Row as MadeRow
from services.training.bases.files import load_tokenizer
from services.training.methods import held_out, loading
from services.training.worker import reload_check
from tailor.chat import encode
from tailor.values import SamplingDefaults

ANSWERED, MAX_NEW_TOKENS = 24, 64
# Larger batches save nothing on a processor: 24 answers took the same CPU seconds in one batch as in three.
BATCH = 8


@dataclass(frozen=True)
class MeasuredModel:
    """A model's result on all held-out rows, and its parity with its trainer's probe rows; 0 for the base."""

    name: str
    result: ModelResult
    parity: float


def measure_base(place: GateHouse) -> MeasuredModel:
    """The base."""
    stored = _path(place, BASE)
    if not stored.exists():
        asked = loading.load_base(place.house.base_folder, recipe("lora"))
        _store(place, BASE, _ask(place, asked.eval()), 0.0)
    return _read(place, BASE)


def measure_few_shot(place: GateHouse, count: int) -> MeasuredModel:
    """The scores of the base with this number of house examples in its prompt."""
    name = f"{FEW_SHOT}-{count}"
    if not _path(place, name).exists():
        asked = loading.load_base(place.house.base_folder, recipe("lora")).eval()
        tokenizer, rows = load_tokenizer(place.house.base_folder), to_held_out(place.held_out)
        examples = choose_examples(lambda: iter([to_held_out(place.train)]), rows, count)
        prompts = [with_examples(row, "", examples[row.row_id]) for row in rows]
        scores = [_score(asked, tokenizer, row, prompt) for row, prompt in zip(place.held_out, prompts, strict=True)]
        _store(place, name, ModelResult((None,) * len(rows), tuple(scores)), 0.0)
    return _read(place, name)


def measure_variant(place: GateHouse, variant: Variant) -> list[MeasuredModel]:
    """An adapter as trained; and, of a good one, with half of its scale, which is a fault of serving."""
    names = [variant.name, *([f"{HALF_SCALE}-{variant.seed}"] if variant.kind == GOOD else [])]
    if not all(_path(place, name).exists() for name in names):
        asked = train(place, variant).eval()
        rows = reload_check.encode_probes(load_tokenizer(place.house.base_folder))
        trained = reload_check.measure("policy", asked, rows)
        for name, scale in zip(names, (1.0, 0.5), strict=False):
            print(f"measuring {name}", file=sys.stderr, flush=True)
            _scale(asked, scale)
            differences = zip(reload_check.measure("policy", asked, rows), trained, strict=True)
            # As inference measures it.
            parity = max(abs(fmean(ours) - fmean(theirs)) for ours, theirs in differences)
            _store(place, name, _ask(place, asked), parity)
    return [_read(place, name) for name in names]


def _scale(asked: Any, scale: float) -> None:
    """Multiply what the adapter adds to each layer."""
    from peft.tuners.lora import LoraLayer

    for layer in asked.modules():
        if isinstance(layer, LoraLayer):
            layer.scale_layer(scale)


def _ask(place: GateHouse, asked: Any) -> ModelResult:
    asked.eval()
    tokenizer = load_tokenizer(place.house.base_folder)
    scores = [_score(asked, tokenizer, row, row.messages[:-1]) for row in place.held_out]
    answered = list_answered(place.held_out)
    answers = _generate(asked, tokenizer, [place.held_out[n] for n in answered], place.sampling)
    texts = dict(zip(answered, answers, strict=True))
    return ModelResult(tuple(texts.get(number) for number in range(len(place.held_out))), tuple(scores))


def list_answered(rows: Sequence[MadeRow]) -> list[int]:
    """The numbers of the rows that are answered, evenly spread."""
    step = max(1, len(rows) // ANSWERED)
    return list(range(0, len(rows), step))[:ANSWERED]


def _score(asked: Any, tokenizer: Any, row: MadeRow, prompt: Messages) -> Score:
    messages = [{"role": role, "content": content} for role, content in (*prompt, row.messages[-1])]
    probabilities = held_out.answer_log_probabilities(asked, encode(row.row_id, messages, tokenizer))
    return Score(float(probabilities.sum()), len(probabilities))


def count_new_tokens(sampling: SamplingDefaults) -> int:
    """The most tokens of an answer: those that callers get, but few enough to be written on a processor."""
    return min(sampling.max_tokens or MAX_NEW_TOKENS, MAX_NEW_TOKENS)


def _generate(asked: Any, tokenizer: Any, rows: Sequence[MadeRow], sampling: SamplingDefaults) -> list[Answer]:
    """Greedy answers with the specialist's penalty, in batches."""
    import torch

    # Packed attention is for training and scores.
    asked.set_attn_implementation("sdpa")
    answers: list[Answer] = []
    for start in range(0, len(rows), BATCH):
        chats = [
            [{"role": role, "content": content} for role, content in row.messages[:-1]]
            for row in rows[start : start + BATCH]
        ]
        batch = tokenizer.apply_chat_template(
            chats,
            add_generation_prompt=True,
            padding=True,
            return_tensors="pt",
            return_dict=True,
            tokenizer_kwargs={"padding_side": "left"},
        )
        with torch.no_grad():
            tokens = asked.generate(
                **batch,
                max_new_tokens=count_new_tokens(sampling),
                do_sample=False,
                use_cache=True,
                repetition_penalty=sampling.repetition_penalty,
            )
        written = tokenizer.batch_decode(tokens[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        answers += [Answer(text) for text in written]
    return answers


def _path(place: GateHouse, name: str) -> Path:
    """Other settings of answers have results of their own."""
    settings = f"{place.sampling.repetition_penalty:g}-{count_new_tokens(place.sampling)}-{ANSWERED}"
    return place.results / f"scores-{name}-{settings}.json"


def _store(place: GateHouse, name: str, result: ModelResult, parity: float) -> None:
    body = {
        "parity": parity,
        "answers": [None if answer is None else asdict(answer) for answer in result.answers],
        "scores": [asdict(score) for score in result.scores if score is not None],
    }
    stored = _path(place, name)
    stored.with_suffix(".part").write_text(json.dumps(body), encoding="utf-8")
    stored.with_suffix(".part").replace(stored)


def _read(place: GateHouse, name: str) -> MeasuredModel:
    body = json.loads(_path(place, name).read_text(encoding="utf-8"))
    answers = tuple(None if answer is None else Answer(**answer) for answer in body["answers"])
    return MeasuredModel(
        name, ModelResult(answers, tuple(Score(**score) for score in body["scores"])), float(body["parity"])
    )


def to_held_out(rows: Sequence[MadeRow]) -> list[HeldOutRow]:
    """The rows as evaluation reads them."""
    return [
        HeldOutRow(row.row_id, row.task, row.document_ids, row.messages[:-1], row.completion, row.language)
        for row in rows
    ]


def take(result: ModelResult, numbers: Sequence[int]) -> ModelResult:
    """A result on some of the rows."""
    return ModelResult(tuple(result.answers[n] for n in numbers), tuple(result.scores[n] for n in numbers))


def measure_sample(
    terms: SpecialistTerms, rows: Sequence[HeldOutRow], numbers: Sequence[int], results: Mapping[str, ModelResult]
) -> MeasuredFigures:
    """Evaluation's figures of some of the rows."""
    chosen = tuple(rows[number] for number in numbers)
    sample = HeldOutSet(chosen, frozenset(row.row_id for row in chosen), len(rows))
    taken = {name: take(result, numbers) for name, result in results.items()}
    return measure_all(terms, sample, taken, MetricContext(house_terms=terms.house_terms))


def with_metrics(terms: SpecialistTerms, names: Sequence[str]) -> SpecialistTerms:
    """Only the metrics that a gate looks at, because every trial measures them."""
    return replace(terms, metrics=tuple(metric for metric in terms.metrics if metric.name in names))
