"""What an answer is worth: a weighted sum of rules, and of what a reward adapter says."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from services.training.adapters.inputs import StoredAdapter
from services.training.methods.reward_model import load_scorer, scores
from services.training.recipe import RewardRule
from tailor.errors import InvalidArgument, Reason

BATCH = 16

# Of the tokens of prompt and answer together, and the words of the answer, for each of several answers.
Part = Callable[[Sequence[Sequence[int]], Sequence[str]], list[float]]


class Rewarder:
    """The recipe's `rewards` over answers to prompts."""

    def __init__(self, parts: Sequence[tuple[float, Part]], tokenizer: Any) -> None:
        self._parts = parts
        self._tokenizer = tokenizer

    def rewards(self, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> list[float]:
        """The reward of each answer. One that was cut before its end is judged as if it ended there."""
        end = self._tokenizer.eos_token_id
        whole = [
            [*prompt, *answer] if answer[-1] == end else [*prompt, *answer, end]
            for prompt, answer in zip(prompts, answers, strict=True)
        ]
        texts = self._tokenizer.batch_decode(answers, skip_special_tokens=True)
        columns = [[weight * value for value in part(whole, texts)] for weight, part in self._parts]
        return [sum(row) for row in zip(*columns, strict=True)]


def make_rewarder(rules: Sequence[RewardRule], base: Path, adapter: StoredAdapter | None, tokenizer: Any) -> Rewarder:
    """The rewarder of a recipe. InvalidArgument (NO_REWARD_ADAPTER) where a rule is `model` and the run has no reward adapter."""
    return Rewarder([(rule.weight, _part(rule, base, adapter, tokenizer)) for rule in rules], tokenizer)


def _part(rule: RewardRule, base: Path, adapter: StoredAdapter | None, tokenizer: Any) -> Part:
    if rule.kind != "model":
        return lambda _, texts: [RULES[rule.kind](rule, text) for text in texts]
    if adapter is None:
        raise InvalidArgument(
            Reason.NO_REWARD_ADAPTER,
            "A reward of kind `model` needs a reward adapter: put a `reward` stage before this one, or train one first.",
            field_violations={"rewards.kind": "there is no reward adapter"},
        )
    return _by_model(load_scorer(base, adapter, tokenizer))


def _by_model(scorer: Any) -> Part:
    def part(whole: Sequence[Sequence[int]], _: Sequence[str]) -> list[float]:
        batches = [whole[start : start + BATCH] for start in range(0, len(whole), BATCH)]
        return [reward for batch in batches for reward in scores(scorer, batch)]

    return part


def of_length(rule: RewardRule, text: str) -> float:
    """1 up to `words` words, falling to 0 at twice as many; an answer without words gets 0."""
    words = len(text.split())
    return min(1.0, max(0.0, 2.0 - words / rule.words)) if words else 0.0


def of_terms(rule: RewardRule, text: str) -> float:
    """The share of `terms` that the text has as whole words, in any case."""
    found = [re.search(rf"(?<!\w){re.escape(term)}(?!\w)", text, re.IGNORECASE) for term in rule.terms]
    return sum(match is not None for match in found) / len(found)


def of_pattern(rule: RewardRule, text: str) -> float:
    """1 where the regular expression matches somewhere."""
    return float(re.search(rule.pattern, text) is not None)


RULES: dict[str, Callable[[RewardRule, str], float]] = {"length": of_length, "terms": of_terms, "pattern": of_pattern}
