"""A model whose weights lie in parts over several processes, made whole again."""

from collections.abc import Callable
from typing import Any


def whole(sharded: Any, rebuild: Callable[[], Any] | None) -> Any:
    """In the first process, a model that `rebuild` makes, with the weights of all parts; None in the others. All call it together."""
    from torch import distributed
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    weights = get_model_state_dict(sharded, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if distributed.get_rank() != 0 or rebuild is None:
        return None
    model = rebuild()
    model.load_state_dict(weights)
    return model
