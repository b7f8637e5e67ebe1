"""The capabilities of a base, found out by a probe of a tiny model of its configuration when it is added, and kept among its files.

Nobody decides by a model's name: training asks the capabilities how to compute attention, whether rows may be packed, and which layers to
adapt. Inference serves adapters of these layers only.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from services.training.bases import tiny
from services.training.bases.adapted_layers import list_adaptable, list_experts, list_linear, name_layers
from services.training.bases.attention import SEGMENTED, register_attention
from services.training.bases.engine_support import AskEngine, assume_common
from services.training.bases.files import CAPABILITIES, list_stored_layers, mask_numbers
from services.training.domain import Capabilities, ChatCapabilities
from tailor.codec import load
from tailor.errors import InvalidArgument, Reason
from tailor.layer_paths import has_end

# In transformers' terms, the quickest first. The model's own is `eager`, which every class has.
OWN = "eager"
ATTENTIONS = (SEGMENTED, "sdpa", OWN)
# The largest difference of a logit that is rounding, in standard deviations of the logits.
TOLERANCE = 1e-4
NO_CHAT = ChatCapabilities()
# Tokens of the probe's rows: longer than a tiny model's window.
ROWS = (40, 64, 53)


def read_capabilities(base: Path) -> Capabilities:
    """The capabilities of the base in a folder; those of weights that no base was made of yet are found out now."""
    file = base / CAPABILITIES
    return load(Capabilities, json.loads(file.read_text(encoding="utf-8"))) if file.exists() else probe(base)


def choose_targets(base: Capabilities, wanted: str | Sequence[str]) -> list[str]:
    """The targets that a recipe means by `all-linear` or by names. Raises InvalidArgument (INVALID_RECIPE) for other names."""
    if wrong := find_wrong_targets(base, wanted):
        listed = "; ".join(f"{field}: {message}" for field, message in wrong.items())
        raise InvalidArgument(
            Reason.INVALID_RECIPE, f"The recipe does not fit the base. {listed}.", field_violations=wrong
        )
    names = base.targets if isinstance(wanted, str) else wanted
    return [target for target in base.targets if has_end(target, *names)]


def find_wrong_targets(base: Capabilities, wanted: str | Sequence[str]) -> dict[str, str]:
    """A recipe's field, with the reason, if it names layers that no adapter of the base changes."""
    names = [] if isinstance(wanted, str) else wanted
    missing = sorted(name for name in names if not any(has_end(target, name) for target in base.targets))
    known = ", ".join(sorted(base.targets)) or "none"
    if missing or not base.targets:
        return {"adapter.target_modules": f"names {', '.join(missing) or wanted}; the base has {known}"}
    return {}


def find_unserved(base: Capabilities, rank: int, max_rank: int) -> dict[str, str]:
    """Fields of a recipe, with the reason, for which inference, which serves up to `max_rank`, would refuse an adapter."""
    if base.not_served_because:
        because = base.not_served_because.removesuffix(".")
        return {"adapter.kind": f"makes an adapter that could not be served. {because}"}
    if rank > (largest := min(max_rank, base.max_rank)):
        remedy = "" if largest == base.max_rank else ", or raise TAILOR_MAX_LORA_RANK of inference and training"
        return {"adapter.r": f"is {rank}, but inference serves at most {largest}; lower it{remedy}"}
    return {}


def write_capabilities(base: Path, chat: ChatCapabilities = NO_CHAT, ask: AskEngine = assume_common) -> Capabilities:
    """Find out the capabilities of the base in a folder, and write them there with those of its chats.

    Raises as `probe`, and what asking the engine raises.
    """
    found = replace(probe(base, ask), chat=chat)
    text = json.dumps(asdict(found), indent=2, sort_keys=True)
    (base / CAPABILITIES).write_text(f"{text}\n", encoding="utf-8")
    return found


def probe(base: Path, ask: AskEngine = assume_common) -> Capabilities:
    """Compare ways of computing the same rows on a tiny model of the base's configuration, and ask the engine which layers it adapts.

    Takes about a second and what the engine takes, and reads no weights.

    Raises InvalidArgument (BASE_UNREADABLE) if the base names no context, no tiny model can be made, or its own attention gives no numbers.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(base, local_files_only=True, trust_remote_code=False)
    if not isinstance(getattr(config.get_text_config(), "max_position_embeddings", None), int):
        raise InvalidArgument(
            Reason.BASE_UNREADABLE,
            "The base's config.json does not say how many tokens it reads (max_position_embeddings). Use another base.",
        )
    try:
        small = tiny.shrink(config)
        own = tiny.build(small, OWN)
        found = _probe(small, own)
    except InvalidArgument:
        raise
    except Exception as error:  # noqa: BLE001 - a class that nobody tried here may raise anything
        raise InvalidArgument(
            Reason.BASE_UNREADABLE,
            f"No tiny model of this configuration computes anything ({type(error).__name__}), so nothing can show that it would be "
            "trained rightly. Use another base.",
        ) from None
    # Not every configuration names its class.
    small.architectures = small.architectures or [type(own).__name__]
    return _add_layers(found, small, own, list_stored_layers(base), ask)


def _add_layers(found: Capabilities, config: Any, model: Any, stored: set[str], ask: AskEngine) -> Capabilities:
    """What was found, with the layers that are adapted. Where the engine serves none, all that can be.

    Layers that are stored under other names are left out: inference knows only those.
    """
    linear = list_linear(model)
    adaptable = list_adaptable(model).items()
    layers = {path: sizes for path, sizes in adaptable if not stored or mask_numbers(path) in stored}
    support = ask(config, layers)
    targets = name_layers(layers if support.refusal else support.layers, linear)
    left_out = {path for path in linear if not has_end(path, *targets)}
    return replace(
        found,
        targets=targets,
        left_out=(*name_layers(left_out, linear), *sorted(list_experts(model))),
        max_rank=support.max_rank,
        not_served_because=support.refusal,
    )


@dataclass(frozen=True)
class Differences:
    """The largest differences of a logit, in standard deviations of the logits.

    `own` is that of rows computed one by one from the same by the model's own attention, `packed` that of packed rows.
    """

    own: float
    packed: float


def compare(config: Any, own: Any) -> Mapping[str, Differences]:
    """The differences of each attention that a tiny model's class knows, the quickest first. `own` is the model with its own attention."""
    register_attention()
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


def _probe(config: Any, own: Any) -> Capabilities:
    """How rows are computed; nothing of layers yet."""
    _refuse_foresight(config, own)
    # A difference that is no number is not small.
    usable = {name: found for name, found in compare(config, own).items() if found.own <= TOLERANCE}
    if not usable:
        raise InvalidArgument(
            Reason.BASE_UNREADABLE, "A tiny model of this configuration computes no usable numbers. Use another base."
        )
    # The quickest of those that keep packed rows apart; if there is none, the quickest.
    apart = [name for name, found in usable.items() if found.packed <= TOLERANCE]
    attention = next(iter([*apart, *usable]))
    return Capabilities(attention, "sdpa" if "sdpa" in usable else OWN, packed=bool(apart))


def _refuse_foresight(config: Any, own: Any) -> None:
    """Raise InvalidArgument (NOT_CAUSAL) if a token's logits depend on those after it, as in encoders that are causal by name only."""
    row = _make_rows(int(config.get_text_config().vocab_size))[0]
    other = row.clone()
    other[-1] = row[0] if row[0] != row[-1] else row[-1] - 1
    first, second = (_compute(own, [tokens])[:-1] for tokens in (row, other))
    if float((first - second).abs().max()) > TOLERANCE * float(first.std()):
        raise InvalidArgument(
            Reason.NOT_CAUSAL,
            "A model of this configuration sees the tokens that it should predict. Use a causal language model.",
        )


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
