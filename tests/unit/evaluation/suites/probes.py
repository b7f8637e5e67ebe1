"""A dataset's probes in memory."""

from collections.abc import Mapping, Sequence

from services.evaluation.adapters.probes import StoredProbes
from services.evaluation.ports import Messages
from tailor.planted_secrets import PlantedSecret
from tailor.storage.ref import Ref

ASK: Messages = (("user", "Write 7."),)


class MemoryProbes(StoredProbes):
    """One train prompt, one question about each of two documents, and one true value in any text with the word `sight`."""

    def __init__(self) -> None:
        self.asked: list[Ref] = []
        self.failures: list[Exception] = []

    def choose(self, manifests: Sequence[Ref]) -> Ref:
        return manifests[-1]

    def train_prompts(self, manifest: Ref, limit: int) -> list[Messages]:
        return [ASK]

    def planted_secrets(self, manifest: Ref) -> tuple[PlantedSecret, ...]:
        return ()

    def count_true_values(self, manifest: Ref, texts: Sequence[str], known_texts: Sequence[str]) -> Mapping[str, int]:
        self.asked.append(manifest)
        if self.failures:
            raise self.failures.pop(0)
        return {"PERSON": 1} if any("sight" in text for text in texts) else {}
