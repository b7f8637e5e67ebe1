"""The processes of one worker, as torchrun starts them: the first one reports, stores and saves; the others only compute with it."""

import ctypes
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, TypeVar

from services.training.recipe import Recipe
from tailor.errors import FailedPrecondition, Reason, Unavailable
from tailor.logging import get_logger

log = get_logger(__name__)

T = TypeVar("T")

Parallelism = Literal["replicate", "shard"]
# The methods that several processes compute together. With other methods, only the first process trains.
SHARED = {"sft", "dpo", "reward"}
PLACES = (("RANK", 0), ("LOCAL_RANK", 0), ("WORLD_SIZE", 1), ("GROUP_RANK", 0))
NAMES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")
# torchrun notices a process that died. This is for one that hangs, and must exceed the time to download a large base.
TIMEOUT = timedelta(hours=1)
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Processes:
    """This process among those of its worker. All of them call the same methods in the same order. `node` numbers the machines."""

    rank: int = 0
    local_rank: int = 0
    world: int = 1
    node: int = 0
    parallelism: Parallelism = "replicate"

    @property
    def sharded(self) -> bool:
        """True if each process holds a shard of the model."""
        return self.world > 1 and self.parallelism == "shard"

    @property
    def first(self) -> bool:
        """True in the process that reports and stores."""
        return self.rank == 0

    def fit_recipe(self, recipe: Recipe) -> Recipe:
        """The recipe with its accumulation rounded up to a multiple of the number of processes, so that all do the same work per step."""
        accumulation = -(-recipe.batch.accumulation // self.world) * self.world
        if accumulation == recipe.batch.accumulation:
            return recipe
        log.info("a step is larger than in the recipe", accumulation=accumulation, processes=self.world)
        return recipe.model_copy(update={"batch": recipe.batch.model_copy(update={"accumulation": accumulation})})

    def trainer_options(self, recipe: Recipe) -> dict[str, Any]:
        """The part of a trainer's configuration that depends on the processes, for a fitted recipe.

        Raises FailedPrecondition (CANNOT_SHARD) if the model should be sharded and cannot be.
        """
        share = {"gradient_accumulation_steps": recipe.batch.accumulation // self.world}
        if self.world == 1:
            return share
        share["ddp_timeout"] = int(TIMEOUT.total_seconds())
        return {**share, **(_sharding_options(recipe) if self.sharded else {"ddp_find_unused_parameters": False})}

    def any(self, flag: bool) -> bool:
        """True in all processes if it is True in one."""
        return self.total(int(flag)) > 0

    def total(self, number: int) -> int:
        """The sum over all processes."""
        return sum(self.gather(number))

    def gather(self, value: T) -> list[T]:
        """Every process's value, in the order of their ranks. Blocks until all have called it."""
        if self.world == 1:
            return [value]
        # Not accelerate's gather_object: until a trainer exists, its state may not know that there are several processes.
        from torch import distributed

        values: list[Any] = [None] * self.world
        distributed.all_gather_object(values, value)
        return values

    def run_once_per_node(self, call: Callable[[], T]) -> T:
        """The result of a call that only one process per machine makes; it must be picklable."""
        results = self.gather((self.node, call()) if self.local_rank == 0 else None)
        return next(result[1] for result in results if result is not None and result[0] == self.node)

    def check_same(self, what: str, value: T) -> T:
        """The value that all processes have. Raises Unavailable (PROCESSES_DIFFER) if they differ."""
        if any(other != value for other in self.gather(value)):
            raise Unavailable(
                Reason.PROCESSES_DIFFER, f"The worker's processes do not see the same {what}. Start it again."
            )
        return value

    def gather_generators(self, folder: Path) -> None:
        """Copy the state of every process's random generators into the first one's checkpoint; each saved its own, maybe elsewhere."""
        name = f"rng_state_{self.rank}.pth"
        states = self.gather((name, (folder / name).read_bytes()) if self.world > 1 else None)
        for state in states if self.first else []:
            if state is not None:
                (folder / state[0]).write_bytes(state[1])

    def leave(self) -> None:
        """Wait for all processes, then leave the group."""
        if self.world > 1:
            from torch import distributed

            distributed.barrier()
            distributed.destroy_process_group()


def join(method: str, parallelism: Parallelism) -> Processes | None:
    """Join the processes that train by a method. None if this process has no part in it."""
    rank, local_rank, world, node = (int(os.environ.get(name, default)) for name, default in PLACES)
    processes = Processes(rank, local_rank, world, node, parallelism)
    if processes.world == 1:
        return processes
    _end_with_parent()
    if method in SHARED:
        _init_group(processes)
        return processes
    if not processes.first:
        return None
    log.info("only one process trains", method=method, processes=processes.world)
    for name in NAMES:
        os.environ.pop(name, None)
    return Processes()


def _init_group(processes: Processes) -> None:
    import torch
    from torch import distributed

    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(processes.local_rank)
        backend = "cuda:nccl,cpu:gloo"
    distributed.init_process_group(backend, timeout=TIMEOUT)


def _end_with_parent() -> None:
    # A torchrun that was killed cannot end its processes.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _sharding_options(recipe: Recipe) -> dict[str, Any]:
    import torch

    if not torch.cuda.is_available():
        raise FailedPrecondition(
            Reason.CANNOT_SHARD,
            "accelerate shards models on GPUs only. Set TAILOR_PARALLELISM=replicate to train on CPUs.",
        )
    if recipe.method != "sft" or recipe.adapter.kind == "qlora":
        raise FailedPrecondition(
            Reason.CANNOT_SHARD,
            "Only sft with lora or all weights can be sharded. Use such a recipe, or set TAILOR_PARALLELISM=replicate.",
        )
    return {
        "fsdp": True,
        "fsdp_config": {
            "version": 2,
            "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
            "reshard_after_forward": True,
            "state_dict_type": "FULL_STATE_DICT",
        },
    }


def gather_model(sharded: Any, rebuild: Callable[[], Any] | None) -> Any:
    """Gather a sharded model: in the first process a model from `rebuild` with all weights, None in the others. All must call it."""
    from torch import distributed
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    weights = get_model_state_dict(sharded, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if distributed.get_rank() != 0 or rebuild is None:
        return None
    model = rebuild()
    model.load_state_dict(weights)
    return model
