"""What inference knows of each specialist: base, sampling, whether to store its drafts, and whether to hide personal data in prompts."""

from services.inference.domain import ServedModel
from tailor.values import Labels, SamplingDefaults

NO_LABELS = Labels()
PLAIN = SamplingDefaults()


class Definitions:
    """Sampling by specialist; labels of those that keep the texts of their drafts, and of those whose prompts are private. Thread-safe."""

    def __init__(self) -> None:
        self._drafts: dict[str, Labels] = {}
        self._prompts: dict[str, Labels | None] = {}
        self._sampling: dict[str, SamplingDefaults] = {}
        self._bases: dict[str, str] = {}
        self._revisions: dict[str, int] = {}

    def is_outdated(self, specialist: str, revision: int) -> bool:
        """True if a newer revision was seen already. Remembers this one otherwise."""
        if revision < self._revisions.get(specialist, 0):
            return True
        self._revisions[specialist] = revision
        return False

    def define(
        self,
        specialist: str,
        labels: Labels = NO_LABELS,
        *,
        base: str = "",
        keep_drafts: bool = False,
        private_prompts: bool = False,
        sampling: SamplingDefaults = PLAIN,
    ) -> None:
        """Apply a new or changed definition; `labels` are those that all its documents share."""
        self._sampling[specialist] = sampling
        self._bases[specialist] = base
        self._prompts[specialist] = labels if private_prompts else None
        if keep_drafts:
            self._drafts[specialist] = labels
        else:
            self._drafts.pop(specialist, None)

    def forget(self, specialist: str) -> None:
        """Remove a definition."""
        self._drafts.pop(specialist, None)
        self._prompts.pop(specialist, None)
        self._sampling.pop(specialist, None)
        self._bases.pop(specialist, None)

    def base(self, specialist: str) -> str | None:
        """Name of the specialist's base, empty if its definition names none; None for a specialist that does not exist."""
        return self._bases.get(specialist)

    def sampling(self, specialist: str) -> SamplingDefaults:
        """How a specialist answers by default. The base (an empty name) takes the likeliest token without penalty."""
        return self._sampling.get(specialist, PLAIN)

    def draft_labels(self, specialist: str) -> Labels | None:
        """Labels to anonymise drafts by; None if the specialist does not keep its drafts' texts."""
        return self._drafts.get(specialist)

    def prompt_labels(self, served: ServedModel) -> Labels | None:
        """Labels to anonymise prompts by; None if prompts are not private. Until the definition arrives, the served model decides."""
        return self._prompts.get(served.specialist, NO_LABELS if served.private_prompts else None)
