"""The loss of packed rows over learned tokens only.

The vocabulary projection, a quarter of a small model's work, runs once over the learned tokens instead of twice over all of them.
"""

from typing import Any

from services.training.methods.rows import IGNORED


def learned_loss(model: Any, inputs: dict[str, Any], items: Any, *, packed: bool = True, chunked: bool = False) -> Any:
    """Mean cross-entropy (nats per learned token) of one packed sequence.

    `inputs` are (1, tokens) tensors, with labels of -100 for tokens that are not learned. `items` is the number of learned tokens of the
    whole step; None means of this sequence. Without `packed` each row is computed by itself, for bases whose layers would mix them.
    With `chunked`, which needs a model that trl's trainer has prepared, only a tile of the logits is in memory at a time.
    """
    learned = int((inputs["labels"][0, 1:] != IGNORED).sum()) if items is None else items
    total = _total_in_chunks if chunked else _total_loss
    return sum(total(model, row) for row in ([inputs] if packed else _rows_of(inputs))) / learned


def _total_loss(model: Any, inputs: dict[str, Any]) -> Any:
    """The sum of the cross-entropies of a sequence's learned tokens."""
    import torch

    inputs = dict(inputs)
    targets = inputs.pop("labels")[0, 1:]  # (tokens - 1,)
    learned = torch.nonzero(targets != IGNORED).flatten()  # (learned,)
    logits = model(**inputs, use_cache=False, logits_to_keep=learned).logits[0]  # (learned, vocabulary)
    return torch.nn.functional.cross_entropy(logits.float(), targets[learned], reduction="sum")


def _total_in_chunks(model: Any, inputs: dict[str, Any]) -> Any:
    """The same by trl's fused head (`trl.trainer.utils.add_fused_lm_head`)."""
    return -model(**inputs, fused_lm_head=True).log_probs.sum()


def _rows_of(inputs: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a packed sequence, as the inputs of each."""
    starts = (inputs["position_ids"][0] == 0).nonzero().flatten().tolist()
    ends = [*starts[1:], inputs["input_ids"].shape[1]]
    names = ("input_ids", "labels", "position_ids")
    return [{name: inputs[name][:, start:end] for name in names} for start, end in zip(starts, ends, strict=True)]
