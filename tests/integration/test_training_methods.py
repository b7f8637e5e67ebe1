"""Each method on a tiny base, in this process: what it learns, where it starts, and that it resumes exactly."""

import math
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.inference.adapters.verify import AdaptedLayers, check_config
from services.training.adapters.inputs import Inputs, StoredAdapter
from services.training.bases.capabilities import read_capabilities, write_capabilities
from services.training.bases.files import load_tokenizer
from services.training.methods import dpo, held_out, pairs, reward, sft
from services.training.methods import reward_model as scoring
from services.training.methods.base import Meter, Method, StageContext, Stopper
from services.training.methods.learned_loss import learned_loss
from services.training.methods.loading import load_base
from services.training.methods.model import load_saved
from services.training.methods.processes import Processes
from services.training.methods.stage_results import StageNotes
from services.training.recipe import Recipe
from services.training.spec import WorkerSpec
from services.training.worker import reload_check, results
from services.training.worker.checkpoints import Checkpoints
from services.training.worker.worker import TrainedModel, train
from tailor.api.events.v1 import models_pb2
from tailor.errors import FailedPrecondition, InvalidArgument
from tailor.storage.memory import MemoryStore
from tailor.storage.ref import Ref
from tests.integration import training_house as house
from tests.models import make_tiny_base, spoil
from tests.unit.training.fakes import read_encoded
from tests.unit.training.stores import make_signer

pytestmark = pytest.mark.integration

SPEC = WorkerSpec(
    "run_1", 1, "reports", "d1", Ref("s3://datasets/d1/manifest.json", "d1", 1), "tiny", "b1", "tiny", "", 0.0, ""
)
METHODS: dict[str, Method] = {"sft": sft.prepare, "dpo": dpo.prepare, "reward": reward.prepare}


class Place:
    """A base, rows, and a folder to train in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        texts = [message["content"] for row in house.rows() for message in row["messages"]]
        self.base = make_tiny_base(folder / "base", texts, vocabulary=400)
        write_capabilities(self.base)
        self.files = {
            "sft": (
                house.write_rows(house.rows()[:10], folder / "sft-1.parquet"),
                house.write_rows(house.rows()[10:], folder / "sft-2.parquet"),
            ),
            "preference": (house.write_rows(house.pairs(), folder / "preference.parquet"),),
            "sft held out": (house.write_rows(house.rows(60)[24:], folder / "sft_held_out.parquet"),),
            "preference held out": (house.write_rows(house.pairs(6, 24), folder / "preference_held_out.parquet"),),
        }
        self.store = MemoryStore()

    def context(self, recipe: Recipe, parent: StoredAdapter | None = None, **changes: Any) -> StageContext:
        """The context of a method."""
        kind = "sft" if recipe.method == "sft" else "preference"
        found = Inputs(self.base, "mit", self.files[kind], self.files[f"{kind} held out"], parent)
        stopper = Stopper(lambda: False, lambda: False)
        output = self.fresh() / "output"
        context = StageContext(
            SPEC,
            recipe,
            found,
            load_tokenizer(self.base),
            output,
            Meter(),
            stopper,
            processes=Processes(),
            notes=StageNotes(MemoryStore(), make_signer(), SPEC.run_id, epoch=1, stage=0),
            report=lambda _phase, _step: None,
        )
        return replace(context, **changes)

    def fresh(self) -> Path:
        """An empty folder."""
        result = self.folder / f"{len(list(self.folder.iterdir()))}"
        result.mkdir()
        return result

    def train(
        self, recipe: Recipe, parent: StoredAdapter | None = None, epoch: int = 1, **changes: Any
    ) -> tuple[TrainedModel | None, list[models_pb2.RunProgressed]]:
        """Train, and return the result with the reported steps."""
        reported: list[models_pb2.RunProgressed] = []
        checkpoints = Checkpoints(self.store, make_signer(), f"run_{recipe.digest}", epoch, 0)
        context = self.context(recipe, parent, **changes)
        return train(context, METHODS[recipe.method], checkpoints, reported.append, threading.Event()), reported

    def trained(
        self, recipe: Recipe, parent: StoredAdapter | None = None
    ) -> tuple[TrainedModel, list[models_pb2.RunProgressed]]:
        """Train to the end, from the beginning."""
        self.store.objects.clear()
        result, reported = self.train(recipe, parent)
        assert result is not None
        return result, reported

    def saved(self, result: TrainedModel, recipe: Recipe) -> StoredAdapter:
        """Save the result as a later run would find it."""
        weights = self.fresh() / "weights"
        results.save_weights(result.model, load_tokenizer(self.base), SPEC, recipe, weights)
        return StoredAdapter(weights, {"recipe": {"name": "tiny", **recipe.model_dump(mode="json")}}, "a" * 64)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("place"))


@pytest.fixture(scope="module")
def parent(place: Place) -> StoredAdapter:
    chosen = house.recipe()
    return place.saved(place.trained(chosen)[0], chosen)


def preferring(method: str, **changes: Any) -> Recipe:
    adapter = {"dropout": 0.0, **changes.pop("adapter", {})}
    return house.recipe(method=method, adapter=adapter, optimizer={"warmup": 0.0}, **changes)


def tensors(result: TrainedModel) -> dict[str, Any]:
    return {
        name: value.clone() for name, value in result.model.state_dict().items() if "lora_" in name or "score" in name
    }


def asked(model: Any, place: Place, kind: str = "policy") -> list[float]:
    tokenizer = load_tokenizer(place.base)
    learned = read_encoded(place.files["sft"], tokenizer)
    asked_rows = [*reload_check.encode_probes(tokenizer), *reload_check.choose_shortest(learned)]
    return [figure for row in reload_check.measure(kind, model, asked_rows) for figure in row]


@pytest.mark.parametrize("with_parent", [True, False], ids=["parent", "base"])
def test_dpo_starts_at_its_reference_and_leaves_it(place: Place, parent: StoredAdapter, with_parent: bool) -> None:
    chosen = preferring("dpo")
    result, reported = place.trained(chosen, parent if with_parent else None)
    # The loss of a zero margin is log 2: the policy is still the reference.
    assert reported[0].loss == pytest.approx(0.6931472, abs=1e-6)
    assert reported[-1].loss < 0.69
    assert result.metrics == {"held_out_accuracy": 1.0}
    # The recipe that it was trained by: in f32 where bf16 would be emulated.
    chosen = place.context(chosen).recipe
    bare = asked(load_base(place.base, chosen), place)
    before = asked(load_saved(place.base, parent.folder, chosen, "policy"), place) if with_parent else bare
    assert (before == pytest.approx(bare, abs=1e-3)) is not with_parent
    result.model.set_adapter("ref")
    assert asked(result.model, place) == pytest.approx(before, abs=1e-6)
    result.model.set_adapter("default")
    assert asked(result.model, place) != pytest.approx(before, abs=1e-3)


def test_dpo_can_keep_chosen_answers_likely(place: Place, parent: StoredAdapter) -> None:
    _, plain = place.trained(preferring("dpo"), parent)
    _, half = place.trained(preferring("dpo", dpo={"nll": 0.5}), parent)
    _, whole = place.trained(preferring("dpo", dpo={"nll": 1.0}), parent)
    added = whole[0].loss - plain[0].loss
    assert added > 0
    assert half[0].loss - plain[0].loss == pytest.approx(added / 2, abs=1e-5)


def test_dpo_learns_no_preference_for_length_if_what_a_longer_answer_has_more_does_not_count(
    place: Place, parent: StoredAdapter
) -> None:
    # The chosen answers differ from the rejected ones only by their length.
    _, counted = place.trained(preferring("dpo"), parent)
    _, skipped = place.trained(preferring("dpo", dpo={"length_weight": 0.0}), parent)
    assert counted[0].loss == skipped[0].loss == pytest.approx(0.6931472, abs=1e-6)
    assert counted[-1].loss < 0.65
    assert skipped[-1].loss == pytest.approx(0.693, abs=0.02)


@pytest.mark.parametrize("method", ["sft", "dpo", "reward"])
def test_resumed_training_equals_uninterrupted_training_bit_for_bit(
    place: Place, parent: StoredAdapter, method: str
) -> None:
    long = {"limit": {"max_steps": 11, "epochs": 20, "max_tokens": 0}, "checkpoint_every_steps": 4}
    chosen = house.recipe(**long) if method == "sft" else preferring(method, **long)
    whole, _ = place.train(chosen, parent)
    assert whole is not None
    place.store.objects.clear()
    steps: list[int] = []
    halfway = Stopper(lambda: False, lambda: bool(steps))
    watched: Callable[[StageContext], Any] = METHODS[method]

    def stopping(context: StageContext) -> Any:
        prepared = watched(context)
        prepared.trainer.add_callback(_after(6, steps))
        return prepared

    checkpoints = Checkpoints(place.store, make_signer(), f"run_{chosen.digest}", 1, 0)
    context = place.context(chosen, parent, stopper=halfway)
    assert train(context, stopping, checkpoints, lambda _: None, threading.Event()) is None
    again, reported = place.train(chosen, parent, epoch=2)
    assert again is not None
    assert reported[0].step == 7
    expected, found = tensors(whole), tensors(again)
    assert expected.keys() == found.keys()
    assert all(bool((value == found[name]).all()) for name, value in expected.items())
    assert again.metrics == whole.metrics


@pytest.mark.parametrize("method", ["sft", "dpo", "reward"])
def test_nan_loss_is_reported_as_nan(place: Place, tmp_path: Path, method: str) -> None:
    base = shutil.copytree(place.base, tmp_path / "base")
    chosen = house.recipe(limit={"max_steps": 1}) if method == "sft" else preferring(method, limit={"max_steps": 1})
    context = place.context(chosen)
    _, reported = place.train(chosen, inputs=replace(context.inputs, base=spoil(base)))
    assert [math.isnan(step.loss) for step in reported] == [True]


def _after(step: int, steps: list[int]) -> Any:
    from transformers import TrainerCallback

    class After(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == step - 1:
                steps.append(step)

    return After()


def test_gradient_checkpointing_computes_the_same_steps(place: Place) -> None:
    ways = {way: house.recipe(precision="f32", batch={"gradient_checkpointing": way}) for way in ("off", "on")}
    losses = {way: [step.loss for step in place.trained(chosen)[1]] for way, chosen in ways.items()}
    assert losses["on"] == pytest.approx(losses["off"], abs=1e-6)


def test_the_loss_in_chunks_is_that_of_all_logits(place: Place) -> None:
    trainer = sft.prepare(place.context(house.recipe(precision="f32", adapter={"dropout": 0.0}))).trainer
    inputs = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    found = []
    for chunked in (False, True):
        loss = learned_loss(trainer.model, dict(inputs), None, chunked=chunked)
        loss.backward()
        found.append(
            [
                loss.item(),
                *(float(weights.grad.norm()) for weights in trainer.model.parameters() if weights.grad is not None),
            ]
        )
        trainer.model.zero_grad()
    assert found[1] == pytest.approx(found[0], rel=1e-5, abs=1e-7) and len(found[0]) > 2


@pytest.mark.parametrize("kind", ["gemma2", "granite", "cohere"])
def test_the_loss_in_chunks_knows_what_a_family_does_to_its_logits(kind: str) -> None:
    """Gemma 2 caps them, Granite divides and Cohere multiplies them."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from trl.trainer.utils import add_fused_lm_head

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = AutoConfig.for_model(kind, vocab_size=96, num_key_value_heads=1, head_dim=16, **sizes)
    config.update({"logits_scaling": 4.0} if kind == "granite" else {})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32)
    add_fused_lm_head(model)
    tokens = torch.arange(4, 24)[None]
    inputs = {"input_ids": tokens, "labels": tokens, "position_ids": torch.arange(20)[None]}
    whole, chunks = (learned_loss(model, dict(inputs), None, chunked=chunked).item() for chunked in (False, True))
    assert chunks == pytest.approx(whole, abs=1e-5)


def test_reward_model_learns_the_order_and_reloads_with_its_head(place: Place, parent: StoredAdapter) -> None:
    chosen = preferring("reward", limit={"max_steps": 12, "epochs": 20, "max_tokens": 0})
    result, reported = place.trained(chosen, parent)
    assert result.prepared.kind == "reward"
    assert result.metrics == {"reward_accuracy": 1.0}
    assert reported[0].loss == pytest.approx(0.6931472, abs=1e-6)
    assert reported[0].reward == 0.0
    assert reported[-1].accuracy == 1.0
    tokenizer = load_tokenizer(place.base)
    scorer = scoring.load_scorer(place.base, {"reward": place.saved(result, chosen)}, tokenizer)
    kept, _ = pairs.read(place.files["preference held out"], tokenizer)
    better = scoring.score(scorer, [pair.chosen.tokens for pair in kept])
    worse = scoring.score(scorer, [pair.rejected.tokens for pair in kept])
    assert min(better) > max(worse)
    # Padding has no effect, and the reward is read at the end of the answer.
    alone = [scoring.score(scorer, [pair.rejected.tokens])[0] for pair in kept]
    assert worse == pytest.approx(alone, abs=1e-3)
    assert scoring.score(scorer, [kept[0].chosen.tokens[:-1]])[0] != pytest.approx(better[0], abs=1e-4)


@pytest.mark.parametrize("kind", ["lora", "qlora"])
@pytest.mark.parametrize("method", ["sft", "dpo", "reward"])
def test_reloaded_model_answers_like_the_trained_one(place: Place, method: str, kind: str) -> None:
    switched = {"kind": kind, "use_rslora": True, "use_dora": method == "sft", "dropout": 0.0}
    chosen = house.recipe(method=method, adapter=switched)
    result, _ = place.trained(chosen)
    # The recipe that it was trained by: in f32 where bf16 would be emulated.
    chosen = place.context(chosen).recipe
    saved = place.saved(result, chosen)
    form = result.prepared.kind
    expected = asked(result.model, place, form)
    reloaded = load_saved(place.base, saved.folder, chosen, form)
    assert asked(reloaded, place, form) == pytest.approx(expected, abs=reload_check.ADAPTER_TOLERANCE)
    assert sorted(path.name for path in saved.folder.iterdir() if path.suffix == ".safetensors") == [
        "adapter_model.safetensors"
    ]
    if method == "sft":
        with pytest.raises(FailedPrecondition, match="use_dora") as refused:
            check_config((saved.folder / "adapter_config.json").read_bytes(), AdaptedLayers(("q_proj",), 64))
        assert refused.value.reason == "UNSUPPORTED_ADAPTER"
        assert "DoRA" in results.not_served_because("policy", chosen, read_capabilities(place.base))


@pytest.mark.parametrize("method", ["sft", "dpo", "reward"])
def test_recipe_that_contradicts_its_parent_is_rejected_with_the_parents_values(
    place: Place, parent: StoredAdapter, method: str
) -> None:
    chosen = house.recipe(method=method, adapter={"r": 8, "use_rslora": True, "dropout": 0.0})
    with pytest.raises(InvalidArgument) as refused:
        METHODS[method](place.context(chosen, parent))
    assert refused.value.reason == "INVALID_RECIPE"
    assert refused.value.field_violations == {
        "adapter.r": "is 8, but the parent's is 4; set that",
        "adapter.use_rslora": "is true, but the parent's is false; set that",
    }


def test_unknown_layer_is_rejected_with_the_known_ones(place: Place) -> None:
    chosen = house.recipe(adapter={"target_modules": ("q_proj", "query")})
    with pytest.raises(InvalidArgument, match=r"names query; the base has down_proj.*v_proj"):
        METHODS["sft"](place.context(chosen))


def test_rows_of_the_wrong_kind_are_rejected(place: Place) -> None:
    context = place.context(preferring("dpo"))
    with pytest.raises(InvalidArgument) as refused:
        METHODS["dpo"](replace(context, inputs=replace(context.inputs, train=place.files["sft"])))
    assert refused.value.reason == "WRONG_DATASET_KIND"


def test_pairs_that_would_be_cut_are_skipped(place: Place) -> None:
    kept, _ = pairs.read(place.files["preference"], load_tokenizer(place.base))
    short = preferring("dpo", batch={"max_length": 38, "tokens": 256})
    fitting = pairs.keep_fitting(kept, short.batch, 2048)
    assert 0 < len(fitting) < len(kept)
    assert max(pair.padded for pair in fitting) <= 2 * 38
    with pytest.raises(InvalidArgument, match=r"batch\.max_length"):
        pairs.keep_fitting(kept, preferring("dpo", batch={"max_length": 16, "tokens": 256}).batch, 2048)


def test_held_out_rows_are_few_and_always_the_same() -> None:
    many = [(f"row_{number}", 100 + number % 7, number) for number in range(200)]
    chosen = held_out.choose(many)
    assert chosen == held_out.choose(list(reversed(many)))
    assert len(chosen) == held_out.MAX_ROWS
    assert len(held_out.choose([(str(number), 1000, number) for number in range(9)])) == 2
