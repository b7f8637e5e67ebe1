"""The capabilities of a base, found out by a probe of a tiny model of its configuration when it is added, and kept among its files.

Nobody decides by a model's name: training asks the capabilities how to compute attention, and whether rows may be packed.
"""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from services.training.bases import tiny
from services.training.bases.attention import SEGMENTED, register_attention
from services.training.bases.chat_template import ChatCapabilities
from services.training.bases.files import CAPABILITIES
from tailor.codec import load
from tailor.errors import InvalidArgument, Reason

# In transformers' terms, the quickest first. The model's own is `eager`, which every class has.
OWN = "eager"
ATTENTIONS = (SEGMENTED, "sdpa", OWN)
# The largest difference of a logit that is rounding, in standard deviations of the logits.
TOLERANCE = 1e-4
# Tokens of the probe's rows: longer than a tiny model's window.
ROWS = (40, 64, 53)


@dataclass(frozen=True)
class Capabilities:
    """How a base is trained as itself.

    `attention` computes rows as the model's own attention does, and `plain_attention` also answers with a cache, both in transformers'
    terms. `packed` means that rows of one micro-batch do not see each other; without it each row is computed by itself.
    """

    attention: str
    plain_attention: str
    packed: bool
    chat: ChatCapabilities = field(default_factory=ChatCapabilities)


def read_capabilities(base: Path) -> Capabilities:
    """The capabilities of the base in a folder; those of weights that no base was made of yet are found out now."""
    file = base / CAPABILITIES
    return load(Capabilities, json.loads(file.read_text(encoding="utf-8"))) if file.exists() else probe(base)


def write_capabilities(base: Path, chat: ChatCapabilities) -> None:
    """Find out the capabilities of the base in a folder, and write them there with those of its chats. Raises as `probe`."""
    text = json.dumps(asdict(replace(probe(base), chat=chat)), indent=2, sort_keys=True)
    (base / CAPABILITIES).write_text(f"{text}\n", encoding="utf-8")


def probe(base: Path) -> Capabilities:
    """Compare ways of computing the same rows on a tiny model of the base's configuration. Takes about a second, and reads no weights.

    Raises InvalidArgument (BASE_UNREADABLE) if no tiny model can be made, or its own attention gives no numbers.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(base, local_files_only=True, trust_remote_code=False)
    try:
        return _probe(tiny.shrink(config))
    except InvalidArgument:
        raise
    except Exception as error:  # noqa: BLE001 - a class that nobody tried here may raise anything
        raise InvalidArgument(
            Reason.BASE_UNREADABLE,
            f"No tiny model of this configuration computes anything ({type(error).__name__}), so nothing can show that it would be "
            "trained rightly. Use another base.",
        ) from None


def _probe(config: Any) -> Capabilities:
    register_attention()
    own = tiny.build(config, OWN)
    rows = _make_rows(int(config.get_text_config().vocab_size))
    alone = _compute_alone(own, rows)
    spread = float(alone.std())

    def is_equal(logits: Any) -> bool:
        return bool((logits - alone).abs().max() <= TOLERANCE * spread)

    packed: dict[str, bool] = {}
    for attention in ATTENTIONS:
        # A class may raise anything for an attention that it does not know.
        with suppress(Exception):
            model = own if attention == OWN else tiny.build(config, attention)
            if is_equal(_compute_alone(model, rows)):
                packed[attention] = is_equal(_compute(model, rows))
    if not packed:
        raise InvalidArgument(
            Reason.BASE_UNREADABLE, "A tiny model of this configuration computes no usable numbers. Use another base."
        )
    # The quickest of those that keep packed rows apart; if there is none, the quickest.
    attention = next((name for name, apart in packed.items() if apart), next(iter(packed)))
    return Capabilities(attention, "sdpa" if "sdpa" in packed else OWN, packed[attention])


def _make_rows(vocabulary: int) -> list[Any]:
    import torch

    generator = torch.Generator().manual_seed(0)
    # The first tokens are special ones.
    return [torch.randint(4, vocabulary, (tokens,), generator=generator) for tokens in ROWS]


def _compute(model: Any, rows: Sequence[Any]) -> Any:
    """The logits of packed rows, (tokens, vocabulary)."""
    import torch

    tokens, positions = torch.cat([*rows])[None], torch.cat([torch.arange(len(row)) for row in rows])[None]
    with torch.no_grad():
        return model(input_ids=tokens, position_ids=positions, use_cache=False).logits[0]


def _compute_alone(model: Any, rows: Sequence[Any]) -> Any:
    import torch

    return torch.cat([_compute(model, [row]) for row in rows])
