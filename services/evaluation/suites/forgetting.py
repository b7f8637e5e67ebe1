"""The base's general abilities that a candidate has lost: instructions whose answers a rule can check, and general texts.

Both are asked without a system prompt, as a general model would be.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy

from services.evaluation.domain import BASE, Score
from services.evaluation.measurement import Measurement, Sums, mean_of, ratio_of
from services.evaluation.ports import SuiteAsker
from services.evaluation.suites.suite import Item, SuiteContext, SuiteMeasure, SuiteResult, choose_items, read_items

INSTRUCTIONS, TEXT, LOSS = "forgetting.instructions", "forgetting.text", "forgetting.loss"
# One text for every three instructions: a text has many tokens, so that its log-likelihood varies little.
INSTRUCTIONS_PER_TEXT = 3
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
NUMBER_WORDS = dict(
    zip(
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"],
        range(13),
        strict=True,
    )
)
BULLET = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s+\S", re.MULTILINE)
SENTENCE_END = re.compile(r"[.!?]+(?=\s|$)")
FENCE = re.compile(r"^```\w*\n(.*?)\n?```$", re.DOTALL)


def run(ask: SuiteAsker, context: SuiteContext) -> SuiteResult:
    """Measure the share of instructions followed, the log-likelihood per token of general texts, and the loss against the base."""
    texts = choose_items(read_items("general"), -(-context.max_items // (INSTRUCTIONS_PER_TEXT + 1)))
    limit = context.max_items - len(texts) if context.max_items else 0
    instructions = choose_items(read_items("instructions"), limit)
    answers = {model: _answer(ask, model, instructions) for model in context.models}
    hits = {
        model: [passes(answer, item.content["checks"]) for item, answer in zip(instructions, values, strict=True)]
        for model, values in answers.items()
    }
    pairs = [(item.messages, item.content["text"]) for item in texts]
    scores = {model: ask.score(model, pairs) for model in context.models}
    measures = {
        INSTRUCTIONS: SuiteMeasure({model: mean_of(values) for model, values in hits.items()}),
        TEXT: SuiteMeasure({model: _likelihood(values) for model, values in scores.items()}),
        LOSS: _loss(hits, scores),
    }
    details = {
        item.item_id: {"passed": {model: bool(hits[model][number]) for model in hits}}
        for number, item in enumerate(instructions)
    }
    return SuiteResult(measures, details=details)


def _answer(ask: SuiteAsker, model: str, items: Sequence[Item]) -> list[str]:
    """The answers in order. Items with the same maximum of tokens are asked together."""
    answers: dict[str, str] = {}
    for tokens in sorted({item.content["max_tokens"] for item in items}):
        group = [item for item in items if item.content["max_tokens"] == tokens]
        group_answers = ask.answer(model, [item.messages for item in group], tokens)
        answers |= {item.item_id: answer for item, answer in zip(group, group_answers, strict=True)}
    return [answers[item.item_id] for item in items]


def _likelihood(scores: Sequence[Score]) -> Measurement:
    """The log-likelihood per token, in nats."""
    return ratio_of([(score.log_probability, float(score.tokens)) for score in scores])


def _loss(hits: Mapping[str, Sequence[bool]], scores: Mapping[str, Sequence[Score]]) -> SuiteMeasure:
    """The loss of each model against the base; the base's own is 0."""
    models = {
        model: Measurement(
            (
                *((float(base) - float(hit), 1.0, 0.0, 0.0) for base, hit in zip(hits[BASE], hits[model], strict=True)),
                *(
                    (0.0, 0.0, base.log_probability - score.log_probability, float(score.tokens))
                    for base, score in zip(scores[BASE], scores[model], strict=True)
                ),
            ),
            larger_loss,
        )
        for model in hits
    }
    return SuiteMeasure(models, lower_is_better=True)


def larger_loss(sums: Sums) -> Sums:
    """The larger of two losses, from sums of shape (..., 4): passed instructions lost, instructions, nats lost, tokens.

    The first is the drop of the share of instructions that are followed. The second is 1 - exp(-nats lost per token): the share of the
    probability of each token of general text that is lost, as a geometric mean. Both are at most 1, and negative for a gain.
    """
    instructions = sums[..., 0] / numpy.maximum(sums[..., 1], 1.0)
    text = 1.0 - numpy.exp(-sums[..., 2] / numpy.maximum(sums[..., 3], 1.0))
    return numpy.asarray(numpy.maximum(instructions, text))


def passes(answer: str, checks: Iterable[Mapping[str, Any]]) -> bool:
    """True if the answer is not empty and passes every check, which a rule decides. Raises KeyError for an unknown check.

    After IFEval (Zhou et al. 2023, arXiv:2311.07911).
    """
    text = answer.strip()
    return bool(text) and all(CHECKS[check["check"]](text, check) for check in checks)


def _occurrences(text: str, word: str) -> list[int]:
    """Where a word or phrase begins in the text, in any capitals; its ending may differ (dog, dogs)."""
    return [match.start() for match in re.finditer(rf"(?<!\w){re.escape(word)}", text, re.IGNORECASE)]


def _contains_any(text: str, check: Mapping[str, Any]) -> bool:
    return any(_occurrences(text, word) for word in check["words"])


def _contains_all(text: str, check: Mapping[str, Any]) -> bool:
    return all(_occurrences(text, word) for word in check["words"])


def _excludes(text: str, check: Mapping[str, Any]) -> bool:
    return not _contains_any(text, check)


def _in_order(text: str, check: Mapping[str, Any]) -> bool:
    place = 0
    for word in check["words"]:
        match = re.compile(rf"(?<!\w){re.escape(word)}(?!\w)").search(text, place)
        if match is None:
            return False
        place = match.end()
    return True


def _count(text: str, check: Mapping[str, Any]) -> bool:
    return _within(len(_occurrences(text, check["word"])), check)


def _words(text: str, check: Mapping[str, Any]) -> bool:
    return _within(len(text.split()), check)


def _sentences(text: str, check: Mapping[str, Any]) -> bool:
    return _within(len(SENTENCE_END.findall(text)), check)


def _bullets(text: str, check: Mapping[str, Any]) -> bool:
    return _within(len(BULLET.findall(text)), check)


def _ends_with(text: str, check: Mapping[str, Any]) -> bool:
    return text.endswith(check["text"])


def _upper_case(text: str, check: Mapping[str, Any]) -> bool:
    del check
    return text.isupper()


def _last_number(text: str, check: Mapping[str, Any]) -> bool:
    numbers = _numbers(text)
    return bool(numbers) and numbers[-1] == check["value"]


def _contains_number(text: str, check: Mapping[str, Any]) -> bool:
    return check["value"] in _numbers(text)


def _json(text: str, check: Mapping[str, Any]) -> bool:
    """The whole answer is JSON, in a code fence or not, and an object with these keys or a list of this length."""
    fenced = FENCE.match(text)
    try:
        value = json.loads(fenced[1] if fenced else text)
    except ValueError:
        return False
    if "length" in check:
        return isinstance(value, list) and len(value) == check["length"]
    return isinstance(value, dict) and sorted(value) == sorted(check["keys"])


def _numbers(text: str) -> Sequence[float]:
    words = re.sub(r"\b[a-z]+\b", lambda word: str(NUMBER_WORDS.get(word[0], word[0])), text.lower())
    return [float(number) for number in NUMBER.findall(words.replace(",", ""))]


def _within(count: int, check: Mapping[str, Any]) -> bool:
    return bool(check.get("min", 0) <= count <= check.get("max", count))


CHECKS: dict[str, Callable[[str, Mapping[str, Any]], bool]] = {
    "bullets": _bullets,
    "contains_all": _contains_all,
    "contains_any": _contains_any,
    "contains_number": _contains_number,
    "count": _count,
    "ends_with": _ends_with,
    "excludes": _excludes,
    "in_order": _in_order,
    "json": _json,
    "last_number": _last_number,
    "sentences": _sentences,
    "upper_case": _upper_case,
    "words": _words,
}
