"""Recipes with stages for tests: `chain` is sft, reward and rloo, `watched` the same with a held-out reward model; `polish` is sft and dpo."""

from pathlib import Path

PART = '[adapter]\nkind = "{adapter}"\nr = {rank}\n[optimizer]\nlearning_rate = 0.001\n'
SINGLE = {
    "tiny": "sft",
    "full": "sft",
    "dpo": "dpo",
    "reward": "reward",
    "held_out_reward": "reward",
    "rloo": "rloo",
    "ruled": "grpo",
    "narrow": "dpo",
}
CHAINS = {
    "narrowing": ("tiny", "narrow"),
    "chain": ("tiny", "reward", "rloo"),
    "watched": ("tiny", "reward", "held_out_reward", "rloo"),
    "polish": ("tiny", "dpo"),
    "heavy": ("full", "dpo"),
    "backwards": ("tiny", "rloo", "reward"),
}
TABLES = {
    "rloo": '[[rewards]]\nkind = "model"\n',
    "ruled": '[[rewards]]\nkind = "length"\nwords = 9\n',
    "held_out_reward": "[held_out_reward]\nshare = 0.5\n",
}


def write_recipes(folder: Path) -> Path:
    """Write the recipes into the folder and return it."""
    for name, method in SINGLE.items():
        precision = 'precision = "f32"\n' if name == "full" else ""
        part = PART.format(adapter="none" if name == "full" else "lora", rank=4 if name == "narrow" else 16)
        folder.joinpath(f"{name}.toml").write_text(f'method = "{method}"\n{precision}{part}{TABLES.get(name, "")}')
    for name, stages in CHAINS.items():
        folder.joinpath(f"{name}.toml").write_text(f"stages = {list(stages)!r}\n")
    return folder
