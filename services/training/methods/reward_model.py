"""The reward model: a base with an adapter and a head that reads one number, the reward, at the end of an answer."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from services.training.adapters.inputs import StoredAdapter
from services.training.bases.attention import separate_rows
from services.training.methods.loading import adapter_options, load_options, prepare_quantised
from services.training.recipe import Recipe
from tailor.chat import end_tokens

HEAD = "score"


def load_reward_base(base: Path, recipe: Recipe) -> Any:
    """The base in the recipe's precision, with a head that is initialised to 0 and always computes in f32."""
    from transformers import AutoModelForSequenceClassification

    options = load_options(base, recipe, skipped=HEAD)
    model = separate_rows(AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, **options))
    model.score = _make_head(model.score.in_features, model.device)
    # Without a padding token, the reward is read at the last token.
    model.config.get_text_config().pad_token_id = None
    return model


def _make_head(size: int, device: Any) -> Any:
    import torch

    class Head(torch.nn.Linear):  # type: ignore[misc]  # defined here, because importing torch takes seconds
        """A linear layer in f32: in bf16, rewards that are close to each other would be equal."""

        def forward(self, hidden: Any) -> Any:
            """(batch, tokens, width) -> (batch, tokens, 1)."""
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
        model = prepare_quantised(model)
    set_seed(recipe.seed)
    options = adapter_options(recipe, base)
    scorer = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", modules_to_save=[HEAD], **options))
    if parent is not None:
        fresh = get_peft_model_state_dict(scorer)
        set_peft_model_state_dict(scorer, {**fresh, **load_file(parent.folder / "adapter_model.safetensors")})
    return scorer


def load_scorer(base: Path, adapters: Mapping[str, StoredAdapter], tokenizer: Any) -> Any:
    """Stored adapters of kind `reward` by name, on one base in the precision of the first, which is active. Ready for `score`."""
    from peft import PeftModel

    (name, first), *others = adapters.items()
    recipe = Recipe.model_validate({k: v for k, v in first.manifest["recipe"].items() if k != "name"})
    scorer = PeftModel.from_pretrained(load_reward_base(base, recipe), first.folder, adapter_name=name)
    for other, adapter in others:
        scorer.load_adapter(adapter.folder, adapter_name=other)
    scorer.config.get_text_config().pad_token_id = choose_padding(tokenizer)
    return scorer.eval()


def score(scorer: Any, sequences: Sequence[Sequence[int]]) -> list[float]:
    """The reward of each conversation with its answer, given as token ids. One forward pass over (sequences, longest) tokens."""
    import torch

    longest = max(map(len, sequences))
    pad = scorer.config.get_text_config().pad_token_id
    padded = [[*tokens, *[pad] * (longest - len(tokens))] for tokens in sequences]
    with torch.no_grad():
        inputs = torch.tensor(padded, device=next(scorer.parameters()).device)
        return [float(reward) for reward in scorer(input_ids=inputs, use_cache=False).logits[:, 0]]


def choose_padding(tokenizer: Any) -> int:
    """A padding token other than those that end answers, because the reward is read at the last token that is not padding."""
    ends = end_tokens(tokenizer, None)
    special: list[int] = [token for token in (tokenizer.pad_token_id, *tokenizer.all_special_ids) if token is not None]
    return next((token for token in special if token not in ends), ends[0])
