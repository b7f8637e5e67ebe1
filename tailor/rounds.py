"""The ranked prompts that a round of a specialist's pipeline needs, and the split that holds some of them out. Standard library only."""

import hashlib
import json
import math
from dataclasses import dataclass

MIN_PROMPTS = 32
# With four held-out pairs, one that goes the other way leaves every gain undecided. With five it need not.
MIN_HELD_OUT = 5


def is_held_out(key: str, percent: int) -> bool:
    """True for about `percent` of all keys, by a fixed hash: what is held out stays held out."""
    return split_draw(key) < percent


def split_draw(key: str) -> int:
    """A fixed draw, 0 to 99. Keys with the lowest draws are held out."""
    digest = hashlib.sha256(json.dumps(["split", key]).encode()).hexdigest()
    return int(digest[:8], 16) % 100


@dataclass(frozen=True)
class RoundProgress:
    """Ranked prompts, those of them that are held out, and how many of both a round needs. `percent` is the share that is held out."""

    prompts: int
    held_out: int
    needed: int
    needed_held_out: int
    percent: int

    @property
    def missing(self) -> int:
        """Prompts still to rank; an estimate if only held-out ones are missing."""
        if self.prompts < self.needed:
            return self.needed - self.prompts
        return math.ceil(max(0, self.needed_held_out - self.held_out) * 100 / max(1, self.percent))

    @property
    def sentence(self) -> str:
        """What is missing, or that there is enough."""
        count = f"{self.prompts} ranked {'prompt' if self.prompts == 1 else 'prompts'}"
        if self.prompts < self.needed:
            return f"{count}; a round needs {self.needed}: {self.missing} to go."
        if self.missing:
            return (
                f"{count}, {self.held_out} of them held out; a round needs {self.needed_held_out} held out: "
                f"about {self.missing} to go."
            )
        return f"{count}, {self.held_out} of them held out: enough for a round."


def measure_progress(prompts: int, held_out: int, *, min_ranked_prompts: int, percent: int) -> RoundProgress:
    """Progress by a specialist's rebuild policy and held-out share in percent, 1 or more.

    A minimum of 0 means as many prompts as are expected to give `MIN_HELD_OUT` held out, at least `MIN_PROMPTS`. A specialist that sets a
    minimum needs only one held out.
    """
    if min_ranked_prompts:
        return RoundProgress(prompts, held_out, min_ranked_prompts, 1, percent)
    needed = max(MIN_PROMPTS, math.ceil(MIN_HELD_OUT * 100 / max(1, percent)))
    return RoundProgress(prompts, held_out, needed, MIN_HELD_OUT, percent)
