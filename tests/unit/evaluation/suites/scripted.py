"""An asker with scripted models, for tests of suites."""

from collections.abc import Callable, Mapping, Sequence

from services.evaluation.domain import Score
from services.evaluation.ports import Messages, SuiteAsker


class ScriptedAsker(SuiteAsker):
    """Each model answers and scores by a function of the prompt's last message; scores are nats per token over ten tokens."""

    def __init__(
        self,
        answers: Mapping[str, Callable[[str], str]] | None = None,
        scores: Mapping[str, Callable[[str, str], float]] | None = None,
    ) -> None:
        self._answers = answers or {}
        self._scores = scores or {}
        self.prompts: list[Messages] = []
        self.scored = 0

    def answer(self, model: str, prompts: Sequence[Messages], max_tokens: int) -> list[str]:
        self.prompts += prompts
        answer = self._answers.get(model)
        return [answer(prompt[-1][1]) if answer else "" for prompt in prompts]

    def score(self, model: str, pairs: Sequence[tuple[Messages, str]]) -> list[Score]:
        self.scored += len(pairs)
        nats = self._scores.get(model)
        return [Score(10 * (nats(prompt[-1][1], completion) if nats else -1.0), 10) for prompt, completion in pairs]
