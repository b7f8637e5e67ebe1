"""`make bench-training`: our SFT against trl's defaults; full, LoRA and QLoRA; and the service's overhead. Half an hour on two cores.

`python -m bench.training speed methods service` measures only the named parts and keeps the figures of the others.
"""

import json
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench import training_house, training_methods, training_service, training_speed
from bench.report import PLOTS, ROOT, keep

NAME = "training"
PARTS = ("speed", "methods", "service")
SCORES = ("rougeL", "bleu", "terms")


def main(chosen: list[str]) -> None:
    """Measure, print and store the figures."""
    report = ROOT / ".tailor" / "bench" / f"{NAME}.json"
    figures: dict[str, Any] = json.loads(report.read_text(encoding="utf-8")) if report.exists() and chosen else {}
    with tempfile.TemporaryDirectory(prefix="tailor-bench-", ignore_cleanup_errors=True) as folder:
        house = training_house.build(Path(folder))
        for part in chosen or PARTS:
            figures |= _measure(part, house)
    section = render(figures)
    print(section)
    keep(NAME, figures, section)


def _measure(part: str, house: training_house.House) -> dict[str, Any]:
    match part:
        case "speed":
            return {"cores": os.cpu_count(), **training_speed.measure(house)}
        case "methods":
            table = training_methods.measure(house)
            training_methods.plot(table, PLOTS / "training.svg")
            return {"table": table, **training_methods.ratios(table)}
        case "service":
            return training_service.measure(house)
        case _:
            raise SystemExit(f"unknown part {part!r}; known parts: {', '.join(PARTS)}")


def render(figures: Mapping[str, Any]) -> str:
    """The section of the page, with the parts that were measured."""
    parts = []
    if "tokens_ratio" in figures:
        parts.append(
            f"On {figures['cores']} cores, the best of {figures['rounds']} rounds on {figures['rows']} rows: {figures['tokens_per_second']} tokens/s "
            f"against {figures['trl_tokens_per_second']} of trl's defaults, {figures['tokens_ratio']} times ({figures['cpu_ratio']} times by CPU). "
            f"Largest difference of a step's loss: {figures['loss_difference']:.1e} nats per token."
        )
    if "table" in figures:
        parts.append(_table(figures))
    if "service_overhead" in figures:
        parts.append(
            f"The service against the bare trainer, {figures['steps']} steps, {figures['checkpoints']} checkpoint, the mean of {len(figures['service_overhead_rounds'])} "
            f"rounds: {figures['service_seconds']} s against {figures['bare_seconds']} s, {figures['service_overhead']:+.1%} with a standard error of "
            f"{figures['service_overhead_error']:.1%} (all CPU seconds {figures['service_cpu_overhead']:+.1%}, standard error "
            f"{figures['service_cpu_overhead_error']:.1%}). Rounds: {', '.join(f'{overhead:+.1%}' for overhead in figures['service_overhead_rounds'])}. Idle, the stack takes "
            f"{figures['idle_stack_cores']:.1%} of a core."
        )
    return "\n\n".join(parts)


def _table(figures: Mapping[str, Any]) -> str:
    lines = [
        "| method | learning rate | held-out loss | ROUGE-L | BLEU | house terms F1 | trained parameters | peak memory | CPU seconds | seconds |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in figures["table"]:
        scores = " | ".join(f"{row['scores'].get(name, 0.0):.3f}" for name in SCORES)
        took = (
            f"{row['trained_parameters'] / 1e6:.1f} M | {row['memory_bytes'] / 1e9:.2f} GB | {row['cpu_seconds']:.0f} | {row['seconds']:.0f}"
            if "seconds" in row
            else "- | - | - | -"
        )
        rate = f"{row['learning_rate']:g}" if "learning_rate" in row else "-"
        lines.append(f"| {row['method']} | {rate} | {row['held_out_loss']:.3f} | {scores} | {took} |")
    lines += [
        "",
        f"LoRA keeps {figures['lora_gain_ratio']:.0%} of full fine-tuning's gain for {figures['lora_cpu_ratio']:.0%} of its CPU seconds and "
        f"{figures['lora_memory_ratio']:.0%} of its memory, QLoRA {figures['qlora_gain_ratio']:.0%} of the gain.",
        "",
        "![Gain, CPU seconds and memory by method](benchmarks/training.svg)",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main(sys.argv[1:])
