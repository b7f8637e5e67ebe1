"""Training on a GPU: precision, NF4, attention kernels, and memory against the forecast."""

from pathlib import Path
from typing import Any

import pytest

from bench.forecast import Case, chat_rows, make_case, measure
from services.training.bases.files import load_tokenizer
from services.training.methods.loading import load_base
from tailor.chat import Encoded, encode
from tests.gpu.conftest import Figures

pytestmark = pytest.mark.gpu


def rows_of(base: Path) -> list[Encoded]:
    tokenizer = load_tokenizer(base)
    return [encode(row["row_id"], row["messages"], tokenizer) for row in chat_rows(4)]


def packed(rows: list[Encoded]) -> dict[str, Any]:
    import torch

    tokens = [token for row in rows for token in row.tokens]
    positions = [place for row in rows for place in range(len(row.tokens))]
    return {
        "input_ids": torch.tensor([tokens], device="cuda"),
        "position_ids": torch.tensor([positions], device="cuda"),
    }


def test_bf16_answers_like_f32_within_its_precision(base: Path, figures: Figures) -> None:
    import torch

    inputs = packed(rows_of(base)[:1])
    with torch.no_grad():
        short = load_base(base, make_case("lora", 512).recipe)(**inputs, use_cache=False).logits.float().log_softmax(-1)
        long = load_base(base, make_case("lora", 512, precision="f32").recipe)(**inputs, use_cache=False).logits
    difference = float((short - long.float().log_softmax(-1)).abs().mean())
    figures.add("bf16 against f32, mean difference of log-probabilities", f"{difference:.4f} nats")
    assert difference < 0.2


def test_packed_rows_are_answered_like_single_rows(base: Path, figures: Figures) -> None:
    import torch

    rows = rows_of(base)
    model = load_base(base, make_case("lora", 512, precision="f32").recipe)
    with torch.no_grad():
        together = model(**packed(rows), use_cache=False).logits[0]
        alone = torch.cat([model(**packed([row]), use_cache=False).logits[0] for row in rows])
    difference = float((together - alone).abs().max())
    figures.add("packed rows against single rows, largest difference of logits", f"{difference:.5f}")
    # TF32 would be accurate to three digits only.
    assert difference < 0.05


def test_nf4_takes_a_fraction_of_bf16(base: Path, figures: Figures) -> None:
    import torch

    taken = {}
    for kind in ("lora", "qlora"):
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated()
        model = load_base(base, make_case(kind, 512).recipe)
        taken[kind] = torch.cuda.memory_allocated() - before
        assert next(model.parameters()).device.type == "cuda"
        del model
    figures.add("weights in bf16 and in NF4", f"{taken['lora'] / 1e6:.0f} MB, {taken['qlora'] / 1e6:.0f} MB")
    assert taken["qlora"] < 0.6 * taken["lora"]


@pytest.mark.parametrize("kernel", ["FLASH_ATTENTION", "CUDNN_ATTENTION", "EFFICIENT_ATTENTION"])
def test_attention_kernel_agrees_with_the_plain_one(kernel: str, figures: Figures) -> None:
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.nn.functional import scaled_dot_product_attention as attend

    torch.manual_seed(0)
    query, key, value = (torch.randn(1, 8, 256, 64, device="cuda", dtype=torch.bfloat16) for _ in range(3))
    with sdpa_kernel(SDPBackend.MATH):
        plain = attend(query, key, value, is_causal=True)
    try:
        with sdpa_kernel(getattr(SDPBackend, kernel)):
            quick = attend(query, key, value, is_causal=True)
    except RuntimeError:
        pytest.skip(f"{kernel} is not available on this GPU with this torch")
    difference = float((quick.float() - plain.float()).abs().max())
    figures.add(f"{kernel.lower().replace('_', ' ')} against the plain one", f"{difference:.4f}")
    assert difference < 0.05


@pytest.mark.parametrize(
    "case",
    [make_case(kind, tokens) for kind in ("lora", "qlora", "none") for tokens in (1024, 4096)],
    ids=lambda case: f"{case.name}, {case.recipe.batch.tokens} tokens",
)
def test_worker_trains_within_its_forecast(base: Path, tmp_path: Path, figures: Figures, case: Case) -> None:
    found = measure(base, case, tmp_path)
    figures.add(
        f"{case.name}, {case.recipe.batch.tokens:,} tokens per step",
        f"forecast {found.forecast_bytes / 1e9:.2f} GB, used {found.used_bytes / 1e9:.2f} GB ({found.error:+.0%}), "
        f"{found.tokens_per_second:,.0f} tokens/s",
    )
    assert abs(found.error) < 0.5
