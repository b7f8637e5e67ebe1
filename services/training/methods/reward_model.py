"""Reward adapters: a base under an adapter and a head that reads one number, the reward, at the end of an answer."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from services.training.adapters.inputs import StoredAdapter
from services.training.methods.model import adapter_options, check_targets, load_options, quantised
from services.training.recipe import Recipe

HEAD = "score"


def load_reward_base(base: Path, recipe: Recipe) -> Any:
    """The base in the recipe's precision under a head that gives every answer 0, and is computed in f32 whatever the precision."""
    from transformers import AutoModelForSequenceClassification

    options = load_options(recipe, skipped=HEAD)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, **options)
    model.score = _head(model.score.in_features, model.device)
    # Without padding, the reward is read at the last token.
    model.config.get_text_config().pad_token_id = None
    return model


def _head(size: int, device: Any) -> Any:
    import torch

    class Head(torch.nn.Linear):  # type: ignore[misc]  # made here, because importing torch takes seconds
        """A linear layer in f32: in bf16, rewards that are near each other would be the same."""

        def forward(self, hidden: Any) -> Any:
            """The rewards at each place."""
            with torch.autocast(hidden.device.type, enabled=False):
                return super().forward(hidden.float())

    head = Head(size, 1, bias=False, device=device, dtype=torch.float32)
    torch.nn.init.zeros_(head.weight)
    return head


def trainable_scorer(base: Path, recipe: Recipe, parent: StoredAdapter | None) -> Any:
    """A reward model to train: a fresh adapter, or one that starts with the parent's matrices, and a head at 0."""
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors.torch import load_file
    from transformers import set_seed

    model = load_reward_base(base, recipe)
    if recipe.adapter.kind == "qlora":
        model = quantised(model)
    check_targets(model, recipe)
    set_seed(recipe.seed)
    scorer = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", modules_to_save=[HEAD], **adapter_options(recipe)))
    if parent is not None:
        fresh = get_peft_model_state_dict(scorer)
        set_peft_model_state_dict(scorer, {**fresh, **load_file(parent.folder / "adapter_model.safetensors")})
    return scorer


def load_scorer(base: Path, reward: StoredAdapter, tokenizer: Any) -> Any:
    """An adapter of kind `reward`, to be asked with `scores`."""
    from peft import PeftModel

    recipe = Recipe.model_validate({k: v for k, v in reward.manifest["recipe"].items() if k != "name"})
    scorer = PeftModel.from_pretrained(load_reward_base(base, recipe), reward.folder)
    scorer.config.get_text_config().pad_token_id = padding(tokenizer)
    return scorer.eval()


def scores(scorer: Any, sequences: Sequence[Sequence[int]]) -> list[float]:
    """The reward of each conversation with its answer, as token ids; one forward for all of them."""
    import torch

    longest = max(map(len, sequences))
    pad = scorer.config.get_text_config().pad_token_id
    padded = [[*tokens, *[pad] * (longest - len(tokens))] for tokens in sequences]
    with torch.no_grad():
        inputs = torch.tensor(padded, device=next(scorer.parameters()).device)
        return [float(reward) for reward in scorer(input_ids=inputs, use_cache=False).logits[:, 0]]


def padding(tokenizer: Any) -> int:
    """A token that ends no answer: the reward is read at the last token that is not this one."""
    end: int = tokenizer.eos_token_id
    special: list[int] = [token for token in (tokenizer.pad_token_id, *tokenizer.all_special_ids) if token is not None]
    return next((token for token in special if token != end), end)
