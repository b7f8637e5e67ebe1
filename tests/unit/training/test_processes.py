"""A recipe on several processes."""

import pytest

from services.training.methods.processes import Processes
from services.training.methods.rows import pad_bins, to_columns
from services.training.recipe import BatchRecipe, Recipe, load_recipe
from tailor.chat import Encoded
from tailor.errors import FailedPrecondition


def recipe(accumulation: int, name: str = "lora") -> Recipe:
    return load_recipe(name).model_copy(update={"batch": BatchRecipe(accumulation=accumulation)})


@pytest.mark.parametrize(("accumulation", "world", "step"), [(4, 1, 4), (4, 2, 4), (1, 2, 2), (4, 3, 6), (8, 8, 8)])
def test_step_is_shared_equally_and_grows_only_if_necessary(accumulation: int, world: int, step: int) -> None:
    processes = Processes(world=world)
    fitted = processes.fit_recipe(recipe(accumulation))
    assert fitted.batch.accumulation == step
    assert processes.trainer_options(fitted)["gradient_accumulation_steps"] * world == step


def test_single_process_needs_no_options_of_others() -> None:
    assert Processes().trainer_options(recipe(4)) == {"gradient_accumulation_steps": 4}


@pytest.mark.parametrize(("bins", "multiple", "filled"), [(5, 2, 6), (4, 2, 4), (1, 4, 4), (3, 1, 3)])
def test_epoch_is_padded_to_complete_steps_with_nothing_to_learn(bins: int, multiple: int, filled: int) -> None:
    rows = [[Encoded(f"row_{number}", (1, 2, 3), 1)] for number in range(bins)]
    columns = to_columns(pad_bins(rows, multiple))
    assert len(columns["labels"]) == filled
    assert all(labels == [-100] for labels in columns["labels"][bins:])
    assert columns["labels"][:bins] == [[-100, 2, 3]] * bins


@pytest.mark.integration
def test_model_is_sharded_on_gpus_only(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    sharding = Processes(world=2, parallelism="shard")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(FailedPrecondition) as refused:
        sharding.trainer_options(recipe(2))
    assert (refused.value.reason, "TAILOR_PARALLELISM=replicate" in refused.value.message) == ("CANNOT_SHARD", True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(FailedPrecondition, match="Only sft"):
        sharding.trainer_options(recipe(2, "qlora"))


@pytest.mark.integration
def test_accelerate_accepts_the_sharding_options(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    import torch
    from accelerate.utils import FullyShardedDataParallelPlugin
    from trl import SFTConfig

    with monkeypatch.context() as here:
        here.setattr(torch.cuda, "is_available", lambda: True)
        options = Processes(world=2, parallelism="shard").trainer_options(recipe(2))
    arguments = SFTConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, **options)
    plugin = FullyShardedDataParallelPlugin(**arguments.fsdp_plugin_args)
    assert (plugin.fsdp_version, plugin.reshard_after_forward, plugin.state_dict_type.name) == (
        2,
        True,
        "FULL_STATE_DICT",
    )
