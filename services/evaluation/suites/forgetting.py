"""The base's general abilities that a candidate has lost: instructions whose answers a rule can check, and general texts.

Both are asked without a system prompt, as a general model would be.
"""

from collections.abc import Mapping, Sequence

import numpy

from services.evaluation.domain import BASE, Score
from services.evaluation.measurement import Measurement, Sums, mean_of, ratio_of
from services.evaluation.suites.checks import passes
from services.evaluation.suites.ports import SuiteAsker
from services.evaluation.suites.suite import Item, SuiteContext, SuiteMeasure, SuiteResult, choose_items, read_items

INSTRUCTIONS, TEXT, LOSS = "forgetting.instructions", "forgetting.text", "forgetting.loss"
# One text for every three instructions: a text has many tokens, so that its log-likelihood varies little.
INSTRUCTIONS_PER_TEXT = 3


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
