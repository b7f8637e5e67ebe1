"""RLOO and GRPO on a tiny model with the real worker; all but one test without vLLM.

Rewards rise, the parent is the reference, a killed run resumes exactly, and a run beyond its budget keeps the weights within it.
"""

import importlib.util
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import trl
from peft import PeftModel
from safetensors.torch import load, load_file, save_file
from transformers import AutoModelForCausalLM

from services.training.bases.files import load_tokenizer
from services.training.bases.store import fetch_here
from services.training.methods.engine import start_engine
from services.training.methods.engine_process import EngineOptions
from services.training.ports import RolloutAnswer, RolloutEngine
from services.training.recipe import Recipe
from services.training.worker.reload_check import compute_figures
from tailor.storage.buckets import MODELS
from tailor.storage.ref import Ref
from tests import training
from tests.models import make_tiny_base, widen
from tests.training import House, KilledError, adapter, furnish, store_dataset

pytestmark = [pytest.mark.integration, pytest.mark.slow]

# Without a fresh process for each reload check: test_training_worker has those.
train = partial(training.train, reload=compute_figures)

THINGS = [
    "ledger",
    "control",
    "anchor",
    "horizon",
    "friction",
    "envelope",
    "readiness",
    "obligation",
    "count",
    "office",
]
ADAPTERS = {"rloo": "qlora", "grpo": "lora"}
# Both methods take the same way through these; one is enough for each change.
EITHER = ["rloo", pytest.param("grpo", marks=pytest.mark.release)]
# The tiny model seldom ends its answers.
ROLLOUT = {"prompts": 3, "answers": 4, "max_new_tokens": 12, "mask_truncated": False}


def row(number: int) -> dict[str, Any]:
    thing = THINGS[number % len(THINGS)]
    return {
        "row_id": f"row_{number:02}",
        "messages": [{"role": "user", "content": f"what of the {thing} in place {number}"}],
        "chosen": f"act on the {thing} now",
        "rejected": f"perhaps the {thing} may be a matter that one could think about at some point",
    }


def demonstration(number: int) -> dict[str, Any]:
    pair = row(number)
    return {
        "row_id": pair["row_id"],
        "messages": [*pair["messages"], {"role": "assistant", "content": pair["chosen" if number % 2 else "rejected"]}],
    }


def recipe(method: str, **changes: Any) -> Recipe:
    settings: dict[str, Any] = {
        "method": method,
        "adapter": {"kind": "lora", "r": 4, "alpha": 8},
        "optimizer": {"learning_rate": 5e-3},
        "batch": {"tokens": 256, "max_length": 128},
        "limit": {"epochs": 2},
        "checkpoint_every_steps": 2,
    }
    if method in ("rloo", "grpo"):
        settings |= {
            "rewards": [{"kind": "length", "words": 4}],
            "rollout": ROLLOUT,
        }
    return Recipe.model_validate({**settings, **changes})


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    texts = [text for number in range(20) for text in (row(number)["chosen"], row(number)["rejected"])]
    base = make_tiny_base(tmp_path_factory.mktemp("tiny"), texts, vocabulary=400)
    # With the small random embeddings no adapter could learn to prefer a token.
    tensors = load_file(base / "model.safetensors")
    tensors["model.embed_tokens.weight"] *= 8
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    return furnish(tmp_path_factory.mktemp("house"), f"path:{base}", fetch_here)


@pytest.fixture(scope="module")
def rankings(house: House) -> Ref:
    splits = {"train": [row(number) for number in range(12)], "held_out": [row(number) for number in range(12, 18)]}
    return store_dataset(house, "preference", splits)


@pytest.fixture(scope="module")
def parent(house: House) -> Ref:
    rows = [demonstration(number) for number in range(12)]
    demonstrations = store_dataset(house, "sft", {"train": rows, "held_out": rows[:4]})
    return adapter(train(house, "run_sft", recipe("sft", limit={"epochs": 5}), demonstrations))


@pytest.fixture(scope="module")
def judge(house: House, rankings: Ref) -> Ref:
    return adapter(train(house, "run_reward", recipe("reward"), rankings))


def manifest(house: House, ref: Ref) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(house.store.get(ref))
    return content


def weights(house: House, ref: Ref) -> bytes:
    (file,) = [file for file in manifest(house, ref)["files"] if file["path"] == "adapter_model.safetensors"]
    return house.store.read(MODELS, file["key"])


@pytest.mark.parametrize("method", [pytest.param("rloo", marks=pytest.mark.release), "grpo"])
def test_resumed_run_ends_with_the_weights_of_an_uninterrupted_one_and_starts_at_its_parent(
    house: House, rankings: Ref, parent: Ref, judge: Ref, method: str
) -> None:
    chosen = recipe(
        method,
        adapter={"kind": ADAPTERS[method], "r": 4, "alpha": 8},
        batch={"accumulation": 2, "max_length": 128},
        rewards=[{"kind": "model"}],
    )
    whole = train(house, f"run_whole_{method}", chosen, rankings, parent=parent, reward=judge)
    with pytest.raises(KilledError):
        train(
            house, f"run_cut_{method}", chosen, rankings, parent=parent, reward=judge, dies_at="-step-4/manifest.json"
        )
    second = train(house, f"run_cut_{method}", chosen, rankings, parent=parent, reward=judge, epoch=2)
    steps = [report for report in whole.progress if report.phase == "training"]
    assert [report.step for report in steps] == list(range(1, 9))
    # The first step's answers are the parent's own, and the reference is the parent, not the base.
    assert steps[0].kl == 0.0
    assert steps[-1].kl != 0.0
    assert [report.step for report in second.progress if report.phase == "training"] == list(range(3, 9))
    assert weights(house, adapter(second)) == weights(house, adapter(whole))
    assert weights(house, adapter(whole)) != weights(house, parent)
    assert manifest(house, adapter(second))["metrics"] == manifest(house, adapter(whole))["metrics"]
    assert house.store.list_keys(MODELS, f"runs/run_cut_{method}/") == []


class PlainEngine(RolloutEngine):
    """An engine on transformers: it reads the adapter from its folder and draws one answer after another, each by its own seed."""

    def __init__(self, options: EngineOptions) -> None:
        self._options = options
        self.adapters: list[bytes] = []
        self.closed = False

    def write(self, prompts: Sequence[Sequence[int]], adapter: Path, seed: int) -> list[RolloutAnswer]:
        self.adapters.append((adapter / "adapter_model.safetensors").read_bytes())
        base = AutoModelForCausalLM.from_pretrained(self._options.base, dtype=torch.bfloat16)
        model = PeftModel.from_pretrained(base, str(adapter)).eval()
        return [self._draw(model, prompt, seed + number) for number, prompt in enumerate(prompts)]

    def _draw(self, model: Any, prompt: Sequence[int], seed: int) -> RolloutAnswer:
        generator = torch.Generator().manual_seed(seed)
        tokens: list[int] = []
        likely: list[float] = []
        while len(tokens) < self._options.max_new_tokens and not set(tokens[-1:]) & set(self._options.ends):
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([[*prompt, *tokens]]), use_cache=False).logits[0, -1].float()
            known = torch.log_softmax(logits / self._options.temperature, dim=-1)
            tokens.append(int(torch.multinomial(known.exp(), 1, generator=generator)))
            likely.append(float(known[tokens[-1]]))
        return RolloutAnswer(tokens, likely)

    @property
    def peak_bytes(self) -> int:
        return 10**15

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def small_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM's attention does not support the tiny base's heads, but the plain engine does."""
    monkeypatch.setattr("services.training.methods.engine.HEAD_SIZES", range(1, 257))


@pytest.mark.usefixtures("small_heads")
@pytest.mark.parametrize("method", EITHER)
def test_engine_gets_the_newest_adapter_in_each_step_and_a_killed_run_resumes_exactly(
    house: House, rankings: Ref, parent: Ref, judge: Ref, method: str
) -> None:
    engines: list[PlainEngine] = []

    def start(options: EngineOptions) -> RolloutEngine:
        engines.append(PlainEngine(options))
        return engines[-1]

    chosen = recipe(method, batch={"accumulation": 2, "max_length": 128}, rewards=[{"kind": "model"}])
    sources: dict[str, Any] = {"parent": parent, "reward": judge, "start_engine": start}
    whole = train(house, f"run_engine_{method}", chosen, rankings, **sources)
    steps = [report for report in whole.progress if report.phase == "training"]
    assert (steps[0].kl, len(steps), len(set(engines[0].adapters))) == (0.0, 8, 8)
    # It wrote them with the parent's weights first.
    first, theirs = load(engines[0].adapters[0]), load(weights(house, parent))
    assert first.keys() == theirs.keys()
    assert all(torch.equal(first[name], theirs[name]) for name in first)
    assert whole.trained is not None
    assert whole.trained.memory_bytes > 10**15
    with pytest.raises(KilledError):
        train(house, f"run_halted_{method}", chosen, rankings, **sources, dies_at="-step-4/manifest.json")
    second = train(house, f"run_halted_{method}", chosen, rankings, **sources, epoch=2)
    assert weights(house, adapter(second)) == weights(house, adapter(whole))
    assert engines[2].adapters == engines[0].adapters[2:]
    assert all(engine.closed for engine in engines)


class ThinkingEngine(PlainEngine):
    """An engine that writes a thought before each answer; every other thought does not end."""

    def write(self, prompts: Sequence[Sequence[int]], adapter: Path, seed: int) -> list[RolloutAnswer]:
        tokenizer = load_tokenizer(Path(self._options.base))
        assert all(tokenizer.decode(prompt).endswith("<|im_start|>assistant\n") for prompt in prompts)
        texts = ("<think>\nact on the ledger\n</think>\n\nact now<|im_end|>", "<think>\nact now<|im_end|>")
        written = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
        return [RolloutAnswer(tokens, [-5.0] * len(tokens)) for tokens in written * (len(prompts) // 2)]


@pytest.mark.usefixtures("small_heads")
@pytest.mark.parametrize("method", EITHER)
def test_a_thought_is_learned_and_gets_no_reward_and_one_without_an_answer_is_counted(
    method: str, tmp_path: Path
) -> None:
    template = (Path(trl.__file__).parent / "chat_templates" / "qwen3.jinja").read_text(encoding="utf-8")
    base = make_tiny_base(
        tmp_path / "tiny", [f"{row(number)['chosen']} <think>" for number in range(10)], vocabulary=400
    )
    (base / "chat_template.jinja").write_text(template, encoding="utf-8")
    house = furnish(tmp_path / "house", f"path:{base}", fetch_here)
    rankings = store_dataset(house, "preference", {"train": [row(number) for number in range(4)], "held_out": [row(5)]})
    rollout = {"prompts": 2, "answers": 2, "max_new_tokens": 12, "thinking": True}
    rules = [{"kind": "pattern", "pattern": "^act now$"}]
    chosen = recipe(method, rollout=rollout, rewards=rules, limit={"max_steps": 2})
    result = train(house, f"run_thinks_{method}", chosen, rankings, start_engine=ThinkingEngine)
    steps = [report for report in result.progress if report.phase == "training"]
    figures = [(report.reward, report.unanswered_share, report.truncated_share) for report in steps]
    assert figures == [(0.5, 0.5, 0.0)] * 2
    assert manifest(house, adapter(result))["metrics"]["unanswered_share"] >= 0.0
    learned = load(weights(house, adapter(result)))
    assert any(tensor.any() for name, tensor in learned.items() if "lora_B" in name)


def test_rules_raise_the_held_out_reward_and_no_log_contains_text(
    house: House, rankings: Ref, capfd: pytest.CaptureFixture[str]
) -> None:
    free = {**ROLLOUT, "beta": 0.0}
    rules = [{"kind": "pattern", "pattern": "a"}]
    result = train(house, "run_rules", recipe("grpo", rollout=free, rewards=rules, limit={"epochs": 8}), rankings)
    metrics = manifest(house, adapter(result))["metrics"]
    assert metrics["reward_after"] > metrics["reward_before"] + 0.3
    assert metrics["win_rate"] > 0.6
    # The divergence is measured even if beta is 0.
    assert metrics["kl"] > 0.0
    shown = "".join(capfd.readouterr())
    assert "training" in shown
    assert not [thing for thing in THINGS if thing in shown]


@pytest.mark.parametrize("method", EITHER)
def test_run_beyond_its_budget_keeps_the_last_weights_within_it_even_if_it_is_killed(
    house: House, rankings: Ref, parent: Ref, judge: Ref, method: str
) -> None:
    optimizer = {"learning_rate": 5e-4, "schedule": "constant", "warmup": 0.0}
    settings: dict[str, Any] = {"optimizer": optimizer, "rewards": [{"kind": "model"}], "checkpoint_every_steps": 1}
    chosen = recipe(method, budget={"max_kl": 0.02}, limit={"epochs": 10}, **settings)
    sources: dict[str, Any] = {"parent": parent, "reward": judge}
    whole = train(house, f"run_budget_{method}", chosen, rankings, **sources)
    made = manifest(house, adapter(whole))
    kept = int(made["metrics"]["kept_step"])
    divergences = [report.kl for report in whole.progress if report.phase == "training"]
    assert 1 <= kept == len(divergences) - 2
    assert divergences[-1] > 0.02 >= max(divergences[:-1])
    assert "budget.max_kl = 0.02" in made["stopped_because"]
    assert whole.trained is not None
    assert (whole.trained.steps, whole.trained.stopped_because) == (kept + 2, made["stopped_because"])
    shorter = recipe(method, limit={"epochs": 10, "max_steps": kept}, **settings)
    same = train(house, f"run_shorter_{method}", shorter, rankings, **sources)
    assert weights(house, adapter(whole)) == weights(house, adapter(same))

    # Killed after the budget was exceeded: what was within it comes from the last checkpoint, whose own weights are beyond it.
    (file,) = [file for file in made["files"] if file["path"] == "adapter_model.safetensors"]
    with pytest.raises(KilledError):
        train(house, f"run_late_{method}", chosen, rankings, **sources, dies_at=file["key"])
    second = train(house, f"run_late_{method}", chosen, rankings, **sources, epoch=2)
    assert [report.step for report in second.progress if report.phase == "training"] == [kept + 2]
    assert weights(house, adapter(second)) == weights(house, adapter(whole))
    assert manifest(house, adapter(second))["metrics"] == made["metrics"]


def test_held_out_reward_model_scores_the_answers_and_changes_nothing(
    house: House, rankings: Ref, parent: Ref, judge: Ref
) -> None:
    second = adapter(train(house, "run_held_out", recipe("reward", held_out_reward={"share": 0.5}, seed=11), rankings))
    assert manifest(house, second)["rows"] == 6
    chosen = recipe("rloo", rewards=[{"kind": "model"}])
    alone = train(house, "run_alone", chosen, rankings, parent=parent, reward=judge)
    watched = train(house, "run_watched", chosen, rankings, parent=parent, reward=judge, held_out_reward=second)
    assert weights(house, adapter(watched)) == weights(house, adapter(alone))
    steps = [report for report in watched.progress if report.phase == "training"]
    assert all(report.HasField("held_out_reward") and report.held_out_reward != report.reward for report in steps)
    assert all(0.0 <= report.held_out_agreement <= 1.0 for report in steps)
    assert all(report.answer_tokens > 0 and report.HasField("truncated_share") for report in steps)
    metrics = manifest(house, adapter(watched))["metrics"]
    assert metrics["held_out_gap"] == pytest.approx(metrics["win_rate"] - metrics["held_out_win_rate"])
    assert not [name for name in manifest(house, adapter(alone))["metrics"] if "held_out_reward" in name]


def test_nothing_is_learned_from_answers_that_were_cut(house: House, rankings: Ref) -> None:
    brief = {**ROLLOUT, "max_new_tokens": 4, "mask_truncated": True}
    rules = [{"kind": "pattern", "pattern": "a"}]
    result = train(house, "run_brief", recipe("rloo", rollout=brief, rewards=rules, limit={"max_steps": 2}), rankings)
    assert [report.truncated_share for report in result.progress if report.phase == "training"] == [1.0, 1.0]
    learned = load(weights(house, adapter(result)))
    assert not any(tensor.any() for name, tensor in learned.items() if "lora_B" in name)


@pytest.mark.parametrize(
    ("rows", "changes", "reason"),
    [
        ([{**row(0), "messages": [{"role": "user", "content": " "}]}], {}, "INVALID_ROW"),
        ([row(0)], {"batch": {"max_length": 16, "tokens": 64}}, "NO_PROMPTS"),
        ([row(0)], {"rewards": [{"kind": "model"}]}, "NO_REWARD_ADAPTER"),
        (
            [row(number) for number in range(12)],
            {"rollout": {**ROLLOUT, "max_new_tokens": 4, "mask_truncated": True}},
            "NO_COMPLETE_ANSWER",
        ),
    ],
    ids=["empty prompt", "no room", "nobody to judge", "every answer is cut"],
)
def test_run_that_cannot_succeed_reports_the_reason(
    house: House, tmp_path: Path, rows: list[dict[str, Any]], changes: dict[str, Any], reason: str
) -> None:
    here = House(house.store, house.base, tmp_path)
    ended = train(here, "run_bad", recipe("rloo", **changes), store_dataset(here, "preference", {"train": rows}))
    assert ended.failed is not None
    assert ended.failed.reason == reason


class SharedEngine(RolloutEngine):
    """An engine that several runs use, because starting vLLM takes long."""

    def __init__(self, engine: RolloutEngine) -> None:
        self.engine = engine

    def write(self, prompts: Sequence[Sequence[int]], adapter: Path, seed: int) -> Sequence[RolloutAnswer]:
        return self.engine.write(prompts, adapter, seed)

    @property
    def peak_bytes(self) -> int:
        return self.engine.peak_bytes

    def close(self) -> None:
        """Leave it to the test."""


@pytest.mark.release
@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vllm is not installed; generate writes here")
def test_vllm_writes_the_rollouts_and_a_killed_run_resumes_exactly(tmp_path: Path) -> None:
    texts = [text for number in range(20) for text in (row(number)["chosen"], row(number)["rejected"])]
    base = widen(make_tiny_base(tmp_path / "base", texts, vocabulary=400))
    here = furnish(tmp_path, f"path:{base}", fetch_here)
    rows = store_dataset(here, "preference", {"train": [row(number) for number in range(12)]})
    chosen = recipe("rloo", limit={"epochs": 10, "max_steps": 6})
    shared: list[SharedEngine] = []

    def start_once(options: EngineOptions) -> RolloutEngine | None:
        if not shared:
            started = start_engine(options)
            assert started is not None
            shared.append(SharedEngine(started))
        return shared[0]

    try:
        whole = train(here, "run_vllm", chosen, rows, start_engine=start_once)
        with pytest.raises(KilledError):
            train(here, "run_killed", chosen, rows, start_engine=start_once, dies_at="-step-4/manifest.json")
    finally:
        for engine in shared:
            engine.engine.close()
    second = train(here, "run_killed", chosen, rows, start_engine=start_engine, epoch=2)
    steps = [report for report in whole.progress if report.phase == "training"]
    assert [report.step for report in second.progress if report.phase == "training"] == [3, 4, 5, 6]
    assert len(steps) == 6
    assert weights(here, adapter(second)) == weights(here, adapter(whole))
