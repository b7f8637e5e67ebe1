"""The reward of an answer: a weighted sum of rules and of the score of a reward adapter. A held-out reward model scores it too, and is
only reported."""

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.training.adapters.inputs import StoredAdapter
from services.training.methods.answers import Prompt
from services.training.methods.reward_model import load_scorer, score
from services.training.recipe_parts import RewardRule
from tailor.chat import encode_answer, encode_end
from tailor.errors import InvalidArgument, Reason
from tailor.thoughts import ThoughtMarkers, ThoughtSplitter

BATCH = 16
REWARD, HELD_OUT_REWARD = "reward", "held_out_reward"

# One term of the reward, for several answers at once: from the tokens of prompt with answer and the texts of the answers.
RewardTerm = Callable[[Sequence[Sequence[int]], Sequence[str]], list[float]]


class Rewarder:
    """Scores answers by the recipe's `rewards`: (weight, term) pairs.

    `thought` has the markers of thoughts, which are split off first, as for callers; None if the base does not think.
    """

    def __init__(
        self, terms: Sequence[tuple[float, RewardTerm]], tokenizer: Any, thought: ThoughtMarkers | None = None
    ) -> None:
        self._terms = terms
        self._tokenizer = tokenizer
        self.thought = thought

    def rewards(self, prompts: Sequence[Prompt], answers: Sequence[Sequence[int]]) -> list[float]:
        """The reward of each answer, given as token ids. A truncated answer is scored as if it ended there.

        If no answer follows a thought, the reward is 0, or the lowest of these answers if that is less, so that writing none never pays.
        """
        texts = self.read(answers)
        answered = {place: text for place, text in enumerate(texts) if text is not None}
        whole = [self._join(prompts[place], answers[place], text) for place, text in answered.items()]
        columns = [[weight * value for value in term(whole, [*answered.values()])] for weight, term in self._terms]
        rewards = dict(zip(answered, map(sum, zip(*columns, strict=True)), strict=True))
        lowest = min([0.0, *rewards.values()])
        return [rewards.get(place, lowest) for place in range(len(answers))]

    def read(self, answers: Sequence[Sequence[int]]) -> list[str | None]:
        """The texts of answers. None if no answer follows a thought, most often because the thought does not end."""
        texts: list[str] = self._tokenizer.batch_decode(answers, skip_special_tokens=self.thought is None)
        if self.thought is None:
            return [*texts]
        return [ThoughtSplitter(self.thought).add(text, is_last=True).answer or None for text in texts]

    def _join(self, prompt: Prompt, answer: Sequence[int], text: str) -> list[int]:
        """The tokens of a conversation with its answer, as reward models learned from such."""
        if self.thought is not None:
            asked, answered = encode_answer(prompt.messages, text, self._tokenizer)
            return [*asked, *answered]
        end = encode_end(self._tokenizer)
        return [*prompt.tokens, *answer, *(end if answer[-1] != end[-1] else ())]


@dataclass(frozen=True)
class Judges:
    """What scores answers: the rewarder that they learn from, and the held-out reward model, whose scores are only reported."""

    rewarder: Rewarder
    held_out_reward: Rewarder | None = None

    @property
    def thinking(self) -> bool:
        """True if the answers begin with a thought."""
        return self.rewarder.thought is not None


def make_judges(
    rules: Sequence[RewardRule],
    base: Path,
    tokenizer: Any,
    *,
    reward: StoredAdapter | None = None,
    held_out_reward: StoredAdapter | None = None,
    thought: ThoughtMarkers | None = None,
) -> Judges:
    """The judges of a recipe for answers with or without thoughts. Both reward adapters share one base in memory.

    Raises InvalidArgument (NO_REWARD_ADAPTER) if a rule is `model` and there is no reward adapter.
    """
    learned = any(rule.kind == "model" for rule in rules)
    if learned and reward is None:
        raise InvalidArgument(
            Reason.NO_REWARD_ADAPTER,
            "A reward of kind `model` needs a reward adapter. Put a `reward` stage before this one, or train one first.",
            field_violations={"rewards.kind": "there is no reward adapter"},
        )
    named = {REWARD: reward if learned else None, HELD_OUT_REWARD: held_out_reward}
    adapters = {name: adapter for name, adapter in named.items() if adapter is not None}
    scorer = load_scorer(base, adapters, tokenizer) if adapters else None
    terms = [
        (rule.weight, _score_by_model(scorer, REWARD) if rule.kind == "model" else _score_by_rule(rule))
        for rule in rules
    ]
    second = [(1.0, _score_by_model(scorer, HELD_OUT_REWARD))] if held_out_reward else []
    return Judges(Rewarder(terms, tokenizer, thought), Rewarder(second, tokenizer, thought) if second else None)


def _score_by_rule(rule: RewardRule) -> RewardTerm:
    return lambda _, texts: [RULES[rule.kind](rule, text) for text in texts]


def _score_by_model(scorer: Any, adapter: str) -> RewardTerm:
    def term(conversations: Sequence[Sequence[int]], _: Sequence[str]) -> list[float]:
        from trl.trainer.utils import use_adapter

        batches = [conversations[start : start + BATCH] for start in range(0, len(conversations), BATCH)]
        with use_adapter(scorer, adapter):
            return [reward for batch in batches for reward in score(scorer, batch)]

    return term


def agreement(ours: Sequence[float], theirs: Sequence[float], answers: int) -> float | None:
    """Share of pairs of answers to one prompt that two judges order alike; a pair that only the second finds equal counts half.

    Both lists have `answers` scores per prompt, one prompt after another. None if the first finds all answers equal.
    """
    points = []
    for start in range(0, len(ours), answers):
        for left, right in itertools.combinations(range(start, start + answers), 2):
            first, second = ours[left] - ours[right], theirs[left] - theirs[right]
            if first:
                points.append(0.5 if not second else float((first > 0) == (second > 0)))
    return sum(points) / len(points) if points else None


def score_length(rule: RewardRule, text: str) -> float:
    """1 up to `words` words, falling linearly to 0 at twice that number; 0 for an answer without words."""
    words = len(text.split())
    return min(1.0, max(0.0, 2.0 - words / rule.words)) if words else 0.0


def score_terms(rule: RewardRule, text: str) -> float:
    """Share of `terms` that the text contains as whole words, ignoring case."""
    matches = [re.search(rf"(?<!\w){re.escape(term)}(?!\w)", text, re.IGNORECASE) for term in rule.terms]
    return sum(match is not None for match in matches) / len(matches)


def score_pattern(rule: RewardRule, text: str) -> float:
    """1 if the regular expression matches anywhere, else 0."""
    return float(re.search(rule.pattern, text) is not None)


RULES: dict[str, Callable[[RewardRule, str], float]] = {
    "length": score_length,
    "terms": score_terms,
    "pattern": score_pattern,
}
