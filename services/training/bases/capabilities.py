"""The capabilities of a base, found out by a probe of a tiny model of its configuration when it is added, and kept among its files.

Nobody decides by a model's name: training asks the capabilities how to compute attention, and whether rows may be packed.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from services.training.bases import tiny
from services.training.bases.attention import SEGMENTED, register_attention
from services.training.bases.engine_support import EngineSupport
from services.training.domain import Capabilities, ChatCapabilities
from tailor.codec import load
from tailor.engine.environment import CAPABILITIES
from tailor.errors import InvalidArgument, Reason

AskEngine = Callable[[Path], EngineSupport | None]

# In transformers' terms, the quickest first. The model's own is `eager`, which every class has.
OWN = "eager"
ATTENTIONS = (SEGMENTED, "sdpa", OWN)
# The largest difference of a logit that is rounding, in standard deviations of the logits.
TOLERANCE = 1e-4
# Layers that choose experts are left as they are, as is usual: a change of theirs moves whole rows to experts that never saw them.
ROUTERS = {"gate", "router", "shared_expert_gate"}
# Tokens of the probe's rows: longer than a tiny model's window.
ROWS = (40, 64, 53)


def read_capabilities(base: Path) -> Capabilities:
    """The capabilities of the base in a folder; those of weights that no base was made of yet are found out now."""
    file = base / CAPABILITIES
    return load(Capabilities, json.loads(file.read_text(encoding="utf-8"))) if file.exists() else probe(base)


def write_capabilities(base: Path, chat: ChatCapabilities, ask_engine: AskEngine = lambda _: None) -> Capabilities:
    """Find out the capabilities of the base in a folder, and write them there with those of its chats. Raises as `probe`.

    `ask_engine` says what the engine serves of it; without an answer, the targets are all layers that can be adapted.
    """
    found = replace(probe(base), chat=chat)
    support = ask_engine(base)
    if support and support.refusal:
        found = replace(found, not_served=support.refusal)
    elif support:
        found = replace(found, targets=tuple(name for name in found.targets if name in support.targets))
    text = json.dumps(asdict(found), indent=2, sort_keys=True)
    (base / CAPABILITIES).write_text(f"{text}\n", encoding="utf-8")
    return found


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


@dataclass(frozen=True)
class Differences:
    """The largest differences of a logit, in standard deviations of the logits.

    `own` is that of rows computed one by one from the same by the model's own attention, `packed` that of packed rows.
    """

    own: float
    packed: float


def compare(config: Any) -> Mapping[str, Differences]:
    """The differences of each attention that a tiny model's class knows, the quickest first. Raises what transformers raises."""
    register_attention()
    own = tiny.build(config, OWN)
    rows = _make_rows(int(config.get_text_config().vocab_size))
    alone = _compute_alone(own, rows)
    spread = float(alone.std())

    def differ(logits: Any) -> float:
        return float((logits - alone).abs().max()) / spread

    found: dict[str, Differences] = {}
    for attention in ATTENTIONS:
        # A class may raise anything for an attention that it does not know.
        with suppress(Exception):
            model = own if attention == OWN else tiny.build(config, attention)
            found[attention] = Differences(differ(_compute_alone(model, rows)), differ(_compute(model, rows)))
    return found


def _probe(config: Any) -> Capabilities:
    # A difference that is no number is not small.
    usable = {name: found for name, found in compare(config).items() if found.own <= TOLERANCE}
    if not usable:
        raise InvalidArgument(
            Reason.BASE_UNREADABLE, "A tiny model of this configuration computes no usable numbers. Use another base."
        )
    # The quickest of those that keep packed rows apart; if there is none, the quickest.
    apart = [name for name, found in usable.items() if found.packed <= TOLERANCE]
    attention = next(iter([*apart, *usable]))
    return Capabilities(
        attention, "sdpa" if "sdpa" in usable else OWN, packed=bool(apart), targets=_list_adaptable(config)
    )


def _list_adaptable(config: Any) -> tuple[str, ...]:
    """The names of linear layers that peft adapts, without those that choose experts and the one that gives the logits."""
    import torch
    from peft import LoraConfig, get_peft_model

    def build() -> Any:
        with torch.device("meta"):
            return tiny.build(config, OWN)

    def is_adaptable(name: str) -> bool:
        try:
            get_peft_model(build(), LoraConfig(r=1, target_modules=[name], task_type="CAUSAL_LM"))
        except ValueError:
            return False
        return True

    model = build()
    head = model.get_output_embeddings()
    names = {
        path.rpartition(".")[2]
        for path, layer in model.named_modules()
        if isinstance(layer, torch.nn.Linear) and layer is not head
    }
    return tuple(sorted(name for name in names - ROUTERS if is_adaptable(name)))


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
