"""Bases of many families are probed, from their configurations only."""

from pathlib import Path

import pytest

from services.training.bases import tiny
from services.training.bases.attention import make_row_mask, segmented_attention
from services.training.bases.capabilities import probe, read_capabilities, write_capabilities
from services.training.bases.engine_support import MAX_RANK, EngineSupport
from services.training.domain import Capabilities, ChatCapabilities
from services.training.methods.learned_loss import learned_loss
from tailor.errors import InvalidArgument
from tests.models import make_tiny_base

# Packed rows of these are computed like single ones.
PACKED = (
    "llama mistral qwen2 qwen3 gemma gemma2 gemma3_text gemma4_text phi phi3 olmo olmo2 olmo3 cohere cohere2 granite smollm3 stablelm "
    "starcoder2 exaone4 glm glm4 ministral3 seed_oss apertus mixtral qwen3_moe qwen2_moe deepseek_v3 gpt_oss granitemoe olmoe ernie4_5 "
    "gpt2 gpt_neox"
).split()
# The layers of these carry a state from row to row, for which torch's own code has no borders.
MIXED = "qwen3_next qwen3_5_text falcon_h1 granitemoehybrid bamba jamba nemotron_h".split()


def describe(folder: Path, family: str, **sizes: object) -> Path:
    """A folder with the configuration of a family's published size."""
    from transformers import AutoConfig

    AutoConfig.for_model(family, **sizes).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("family", PACKED)
def test_rows_of_a_family_are_packed_and_attended_to_as_by_its_own_code(family: str, tmp_path: Path) -> None:
    found = probe(describe(tmp_path, family))
    assert (found.attention, found.packed) == ("segmented", True)


@pytest.mark.parametrize("family", MIXED)
def test_rows_of_a_family_that_would_see_each_other_are_not_packed(family: str, tmp_path: Path) -> None:
    assert not probe(describe(tmp_path, family)).packed


def test_a_family_whose_scores_torchs_attention_does_not_cap_answers_by_its_own(tmp_path: Path) -> None:
    assert probe(describe(tmp_path, "gemma2")).plain_attention == "eager"


def test_capabilities_are_read_from_the_bases_files(tmp_path: Path) -> None:
    chat = ChatCapabilities(ends=(2, 7), end="<|im_end|>", keeps_turns=True)
    write_capabilities(describe(tmp_path, "llama"), chat)
    (tmp_path / "config.json").unlink()
    targets = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    assert read_capabilities(tmp_path) == Capabilities(
        "segmented", "sdpa", packed=True, targets=targets, max_rank=MAX_RANK, chat=chat
    )


@pytest.mark.parametrize(
    ("family", "targets"),
    [
        ("phi3", {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"}),
        ("glm4", {"q_proj", "k_proj", "v_proj", "o_proj", "gate_up_proj", "down_proj"}),
        ("qwen3_moe", {"q_proj", "k_proj", "v_proj", "o_proj"}),
        # peft takes `down_proj`, also of layers without experts, for the weights of experts.
        ("ernie4_5_moe", {"q_proj", "k_proj", "v_proj", "o_proj"}),
        ("deepseek_v3", {"q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"}),
        ("falcon_h1", {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "in_proj"}),
    ],
)
def test_adapters_leave_out_routers_and_what_peft_refuses(family: str, targets: set[str], tmp_path: Path) -> None:
    found = probe(describe(tmp_path, family), lambda _, layers: EngineSupport(tuple(layers)))
    assert {target.rpartition(".")[2] for target in found.targets} == targets


def test_adapters_leave_out_layers_that_are_stored_under_other_names(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    make_tiny_base(tmp_path, ["The control envelope holds."], vocabulary=300)
    assert "q_proj" in probe(tmp_path).targets
    weights = load_file(tmp_path / "model.safetensors")
    renamed = {name.replace("q_proj", "query"): tensor for name, tensor in weights.items()}
    save_file(renamed, tmp_path / "model.safetensors", {"format": "pt"})
    found = probe(tmp_path)
    assert set(found.targets) == {"k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert "q_proj" in found.left_out


def test_rows_that_are_not_packed_have_the_loss_of_each_by_itself() -> None:
    import torch
    from transformers import AutoConfig

    model = tiny.build(tiny.shrink(AutoConfig.for_model("qwen3_next")), "eager")
    tokens, half = torch.arange(4, 54)[None], torch.arange(25)[None]
    packed = {"input_ids": tokens, "labels": tokens, "position_ids": torch.cat([half, half], dim=1)}
    rows = [{"input_ids": row, "labels": row, "position_ids": half} for row in (tokens[:, :25], tokens[:, 25:])]
    alone = sum(learned_loss(model, row, None).item() for row in rows) / 2
    # The second row's first token is not learned from the first row's last one, as trl's collator sees to.
    packed["labels"] = tokens.where(packed["position_ids"] != 0, -100)
    assert learned_loss(model, packed, None, packed=False).item() == pytest.approx(alone, abs=1e-5)
    assert learned_loss(model, packed, None).item() != pytest.approx(alone, abs=1e-4)


def test_segmented_attention_refuses_what_it_would_compute_wrongly() -> None:
    import torch

    sizes = {"q_length": 4, "mask_function": lambda *_: True, "device": "cpu"}
    for wrong in ({"kv_length": 8}, {"kv_length": 4, "attention_mask": torch.tensor([[0, 1, 1, 1]])}):
        with pytest.raises(ValueError, match="no cache, no padding on the left"):
            make_row_mask(**{**sizes, **wrong})
    with pytest.raises(TypeError, match="make_row_mask"):
        segmented_attention(None, torch.ones(1, 1, 4, 8), torch.ones(1, 1, 4, 8), torch.ones(1, 1, 4, 8), None)


def test_a_configuration_that_no_tiny_model_computes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="nothing can show that it would be trained rightly"):
        probe(describe(tmp_path, "blt"))


def test_a_base_that_does_not_say_how_much_it_reads_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="max_position_embeddings"):
        probe(describe(tmp_path, "mamba"))


@pytest.mark.parametrize("family", ["electra", "bert"])
def test_an_encoder_is_refused_although_its_class_is_called_causal(family: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="sees the tokens that it should predict") as refused:
        probe(describe(tmp_path, family))
    assert refused.value.reason == "NOT_CAUSAL"


def test_a_class_that_knows_no_other_attention_keeps_its_own(tmp_path: Path) -> None:
    found = probe(describe(tmp_path, "codegen"))
    assert (found.attention, found.packed) == ("eager", True)
