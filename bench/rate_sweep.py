"""Whether the derived learning rate fits: `python -m bench.rate_sweep` sweeps factors of it on SmolLM2-135M and on bases of other widths, made here.

The bases that are made are Llamas that read the descriptions of the installed Python packages for some minutes. The real worker then runs the
recipe `sweep` on the rows of the sample. The held-out loss at each factor goes into docs/benchmarks.md. Half an hour on two cores.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator, Mapping
from importlib.metadata import distributions
from pathlib import Path
from random import Random
from typing import Any

from bench.report import keep
from bench.training_house import build, recipe, run_worker
from services.training.rates import choose_rate
from tests.models import make_tiny_base

NAME = "rates"
WIDTHS = (64, 128, 256, 512)
FACTORS = [0.25, 0.5, 1.0, 2.0, 4.0, 8.0]
TOKENS, LAYERS, VOCABULARY = 36_000, 4, 4096
# Of reading: sequences of a step, tokens of each, steps, and the rate at a width of 64.
SEQUENCES, LENGTH, STEPS, RATE = 8, 256, 500, 4e-3


def main() -> None:
    """Sweep, print and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--widths", type=int, nargs="*", default=WIDTHS, help="of the bases that are made")
    widths = parser.parse_args().widths
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="tailor-bench-", ignore_cleanup_errors=True) as folder:
        for width in widths:
            make_base(Path(folder) / str(width) / "base", width)
        for name in (*map(str, widths), "SmolLM2-135M"):
            figures[name] = sweep(Path(folder) / name)
            print(name, figures[name], flush=True)
    section = render(figures)
    print(section)
    if tuple(widths) == WIDTHS:
        keep(NAME, figures, section)


def make_base(folder: Path, width: int) -> None:
    """A Llama of a width that has read some text."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

    texts = list(read_descriptions())
    make_tiny_base(folder, texts[:200], vocabulary=VOCABULARY)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = LlamaConfig.from_pretrained(
        folder,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=LAYERS,
        num_attention_heads=width // 32,
        num_key_value_heads=width // 32,
        head_dim=32,
    )
    torch.manual_seed(width)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    tokens = torch.tensor([token for text in texts for token in tokenizer(text)["input_ids"]])
    rate = RATE * 64 / width
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=STEPS)
    random = Random(width)
    for step in range(STEPS):
        starts = [random.randrange(len(tokens) - LENGTH) for _ in range(SEQUENCES)]
        batch = torch.stack([tokens[start : start + LENGTH] for start in starts])
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 100 == 0 or step == STEPS - 1:
            print(f"width {width}, step {step}: loss {loss.item():.3f}", flush=True)
    model.to(torch.bfloat16).save_pretrained(folder)


def read_descriptions() -> Iterator[str]:
    """The descriptions of the installed packages, in the order of their names."""
    for installed in sorted(distributions(), key=lambda each: str(each.metadata["Name"]).lower()):
        if text := installed.metadata.json.get("description"):
            yield str(text)


def sweep(root: Path) -> dict[str, Any]:
    """The derived rate of a base, and the held-out loss after a trial of each factor of it."""
    house = build(root)
    width = json.loads((house.base_folder / "config.json").read_text(encoding="utf-8"))["hidden_size"]
    chosen = recipe(
        "sweep",
        limit={"epochs": 8.0, "max_tokens": TOKENS},
        batch={"tokens": 512, "max_length": 512},
        sweep={"factors": FACTORS, "share": 0.5},
        checkpoint_every_steps=1000,
    )
    rate = choose_rate(chosen, width, "llama")
    used = run_worker(house, "sweep", chosen.with_rate(rate))
    return {"width": width, "rate": rate, "metrics": used.trained["metrics"]}


def render(figures: Mapping[str, Any]) -> str:
    """The section of the page."""
    lines = [
        f"| base | width | derived rate | {' | '.join(f'x {factor:g}' for factor in FACTORS)} |",
        f"|---|---|---|{'---|' * len(FACTORS)}",
    ]
    for name, found in figures.items():
        rates = [f"{factor * found['rate']:g}" for factor in FACTORS]
        losses = [found["metrics"].get(f"sweep_loss_at_{float(rate):g}") for rate in rates]
        least = min(loss for loss in losses if loss is not None)
        cells = (
            "diverged" if loss is None else f"**{loss:.3f}**" if loss == least else f"{loss:.3f}" for loss in losses
        )
        label = name if name.startswith("Smol") else "made here"
        lines.append(f"| {label} | {found['width']} | {found['rate']:.1e} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
