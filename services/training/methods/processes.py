"""The processes of one worker, as torchrun starts them: the first speaks, stores and saves; the others only compute with it."""

import ctypes
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, TypeVar

from services.training.recipe import Recipe
from tailor.api.training.v1 import training_pb2 as pb
from tailor.errors import FailedPrecondition, Reason, Unavailable
from tailor.logging import get_logger

log = get_logger(__name__)

T = TypeVar("T")

Parallelism = Literal["replicate", "shard"]
# The methods that several processes compute together; by another one the first process trains alone.
SHARED = {"sft", "dpo", "reward"}
PLACES = (("RANK", 0), ("LOCAL_RANK", 0), ("WORLD_SIZE", 1), ("GROUP_RANK", 0))
NAMES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")
# A process that is gone is noticed by torchrun; this is for one that hangs, and longer than bringing a large base takes.
PATIENCE = timedelta(hours=1)
END_WITH_PARENT = 1  # PR_SET_PDEATHSIG


@dataclass(frozen=True)
class Processes:
    """This process among those of its worker; all of them call the same methods in the same order. `node` counts machines."""

    rank: int = 0
    local_rank: int = 0
    world: int = 1
    node: int = 0
    parallelism: Parallelism = "replicate"

    @property
    def sharded(self) -> bool:
        """True where each process holds a part of the model."""
        return self.world > 1 and self.parallelism == "shard"

    @property
    def first(self) -> bool:
        """True in the process that speaks for all."""
        return self.rank == 0

    def fitted(self, recipe: Recipe) -> Recipe:
        """The recipe with a step that all processes have an equal share of: its accumulation, or the next multiple of their number."""
        whole = -(-recipe.batch.accumulation // self.world) * self.world
        if whole == recipe.batch.accumulation:
            return recipe
        log.info("a step takes more than the recipe says", accumulation=whole, processes=self.world)
        return recipe.model_copy(update={"batch": recipe.batch.model_copy(update={"accumulation": whole})})

    def trainer_options(self, recipe: Recipe) -> dict[str, Any]:
        """What a trainer's configuration has to know, of a fitted recipe.

        FailedPrecondition (CANNOT_SHARD) where parts of a model were asked for, and nothing here can hold them.
        """
        share = {"gradient_accumulation_steps": recipe.batch.accumulation // self.world}
        if self.world == 1:
            return share
        share["ddp_timeout"] = int(PATIENCE.total_seconds())
        return {**share, **(_sharded(recipe) if self.sharded else {"ddp_find_unused_parameters": False})}

    def any(self, flag: bool) -> bool:
        """True in all where it is in one."""
        return self.total(int(flag)) > 0

    def total(self, number: int) -> int:
        """The sum over all."""
        return sum(self.gather(number))

    def gather(self, value: T) -> list[T]:
        """Everybody's value, in the order of their ranks."""
        if self.world == 1:
            return [value]
        from torch import distributed

        values: list[Any] = [None] * self.world
        distributed.all_gather_object(values, value)
        return values

    def once_a_node(self, call: Callable[[], T]) -> T:
        """The result of a call that one process makes for all of its machine; it can be pickled."""
        made = self.gather((self.node, call()) if self.local_rank == 0 else None)
        return next(found[1] for found in made if found is not None and found[0] == self.node)

    def same(self, what: str, value: T) -> T:
        """The value that all have; Unavailable (PROCESSES_DIFFER) where they do not."""
        if any(other != value for other in self.gather(value)):
            raise Unavailable(
                Reason.PROCESSES_DIFFER, f"The worker's processes do not see the same {what}; start again."
            )
        return value

    def bring_generators(self, folder: Path) -> None:
        """Put the state of everybody's random generators into the first's checkpoint: each has saved its own, perhaps elsewhere."""
        name = f"rng_state_{self.rank}.pth"
        states = self.gather((name, (folder / name).read_bytes()) if self.world > 1 else None)
        for state in states if self.first else []:
            if state is not None:
                (folder / state[0]).write_bytes(state[1])

    def leave(self) -> None:
        """Wait for all, then go separate ways."""
        if self.world > 1:
            from torch import distributed

            distributed.barrier()
            distributed.destroy_process_group()


class Silence:
    """The training service, for a process that does not speak."""

    def report(self, request: pb.ReportProgressRequest) -> bool:
        """Say nothing, and go on."""
        del request
        return False


def join(method: str, parallelism: Parallelism) -> Processes | None:
    """This process among those that train by a method together; None where it has no part in that."""
    rank, local_rank, world, node = (int(os.environ.get(name, default)) for name, default in PLACES)
    found = Processes(rank, local_rank, world, node, parallelism)
    if found.world == 1:
        return found
    _end_with_parent()
    if method in SHARED:
        _meet(found)
        return found
    if not found.first:
        return None
    log.info("one process trains", method=method, processes=found.world)
    for name in NAMES:
        os.environ.pop(name, None)
    return Processes()


def _meet(found: Processes) -> None:
    import torch
    from torch import distributed

    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(found.local_rank)
        backend = "cuda:nccl,cpu:gloo"
    distributed.init_process_group(backend, timeout=PATIENCE)


def _end_with_parent() -> None:
    # A torchrun that was killed can end nobody.
    ctypes.CDLL(None).prctl(END_WITH_PARENT, signal.SIGKILL)


def _sharded(recipe: Recipe) -> dict[str, Any]:
    import torch

    if not torch.cuda.is_available():
        raise FailedPrecondition(
            Reason.CANNOT_SHARD,
            "accelerate shards models on GPUs only; set TAILOR_PARALLELISM=replicate to train on CPUs.",
        )
    if recipe.method != "sft" or recipe.adapter.kind == "qlora":
        raise FailedPrecondition(
            Reason.CANNOT_SHARD,
            "Only sft with lora or all weights is sharded; take such a recipe, or set TAILOR_PARALLELISM=replicate.",
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
