"""Guesses of an answer's next tokens: what followed the same tokens before, in a prompt or an answer of the same step.

vLLM computes a row's guessed tokens together with its last one, and keeps those that the row draws (`engine_sampling.py`). With few
rows, more tokens cost little: five rows of SmolLM2-135M took 1.4 times as long as one. This is speculative decoding (Leviathan et al. 2023)
from what was written before (Saxena 2023). vLLM imports `Guesses` by name.
"""

from collections.abc import Sequence
from typing import Any

# Tokens that are guessed at once for a row. From 4 to 8 the time hardly depends on it, in a simulation with the answers of a bench.
LONGEST_GUESS = 6
# Lengths of the sequences that are looked up, the longest first.
LOOKUPS = (3, 2)


class Guesses:
    """What followed which tokens in a step.

    Guesses take the places of answers that have ended, and cease if most rows draw something else.
    """

    def __init__(self, config: Any) -> None:
        self._places: int = config.scheduler_config.max_num_seqs
        self.begin([])

    def load_model(self, _: object) -> None:
        """Nothing: vLLM calls it for all kinds of guesses, also for those of a model."""

    def begin(self, prompts: Sequence[Sequence[int]]) -> None:
        """Forget all answers, and learn from the prompts of the next ones."""
        self._next: dict[tuple[int, ...], int] = {}
        self._right = self._wrong = 0
        for prompt in {tuple(prompt) for prompt in prompts}:
            self._learn(prompt, 0)

    def count(self, right: int, wrong: int) -> None:
        """Note how many guessed tokens were drawn, and how many rows drew another token instead."""
        self._right += right
        self._wrong += wrong

    def propose(
        self, drawn: Sequence[Sequence[int]], lengths: Sequence[int], tokens: Any, **_: object
    ) -> list[list[int]]:
        """The next tokens of each row, or none.

        `drawn` are the tokens that a row got in this step: none if it still reads its prompt. `lengths` are those of the rows of `tokens`
        (rows, tokens), with the drawn ones.
        """
        texts = {}
        for row, new in enumerate(drawn):
            if new:
                text = tuple(tokens[row, max(0, lengths[row] - len(new) - LOOKUPS[0]) : lengths[row]].tolist())
                self._learn(text, len(text) - len(new))
                texts[row] = text
        longest = min(LONGEST_GUESS, (self._places - len(drawn)) // len(drawn)) if self._right >= self._wrong else 0
        return [self._guess(texts[row], longest) if row in texts else [] for row in range(len(drawn))]

    def _learn(self, text: tuple[int, ...], first: int) -> None:
        for place in range(first, len(text)):
            for length in LOOKUPS:
                if length <= place:
                    self._next[text[place - length : place]] = text[place]

    def _guess(self, text: tuple[int, ...], longest: int) -> list[int]:
        guessed: list[int] = []
        while len(guessed) < longest:
            last = (*text, *guessed)[-LOOKUPS[0] :]
            token = next((self._next[last[-length:]] for length in LOOKUPS if last[-length:] in self._next), None)
            if token is None:
                break
            guessed.append(token)
        return guessed
