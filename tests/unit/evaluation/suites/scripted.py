"""An asker with scripted models, for tests of suites."""

from collections.abc import Callable, Mapping, Sequence

from services.evaluation.domain import Score
from services.evaluation.suites.suite import Asker, Messages


class ScriptedAsker(Asker):
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
        return [self._answers.get(model, lambda _: "")(prompt[-1][1]) for prompt in prompts]

    def score(self, model: str, pairs: Sequence[tuple[Messages, str]]) -> list[Score]:
        self.scored += len(pairs)
        found = self._scores.get(model, lambda *_: -1.0)
        return [Score(10 * found(prompt[-1][1], completion), 10) for prompt, completion in pairs]
