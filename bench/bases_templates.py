"""Every chat template that trl ships, as a base would have it: whether row, rollout, score and answer begin and end at the same tokens.

`python -m bench.bases --templates` runs only this, in a minute.
"""

import json
import re
import tempfile
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from services.inference.adapters.model_store import CAPABILITIES
from services.inference.domain import ChatMessage
from services.inference.engines.chat import ChatTemplate
from services.training.bases.chat_probe import prepare_template
from services.training.bases.files import load_tokenizer
from services.training.domain import ChatCapabilities
from services.training.methods.answers import prompt_tokens
from tailor.chat import encode
from tailor.codec import dump
from tailor.errors import InvalidArgument

YES = "yes"
CONTROL = re.compile(r"<\|[^<>|]+\|>|<｜[^<>｜]+｜>|<\w+_of_\w+>|<\|\w+>|<\w+\|>|</s>|\[gMASK\]|<sop>|<image>")
CHAT = [
    {"role": "user", "content": "Which control failed?"},
    {"role": "assistant", "content": "The second one."},
    {"role": "user", "content": "Who owns it?"},
    {"role": "assistant", "content": "Treasury."},
]


def read_shipped() -> dict[str, str]:
    """The templates that trl ships, by name, also those for training."""
    folder = Path(str(files("trl"))) / "chat_templates"
    return {path.stem: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.jinja"))}


def make_tokenizer(folder: Path, template: str) -> Path:
    """A tokenizer of bytes, with all control tokens of the templates and an end of text that no template knows."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: number for number, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(sorted({word for text in read_shipped().values() for word in CONTROL.findall(text)}))
    ends = {"bos_token": "<bos>", "eos_token": "<eos>"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=template, **ends)
    fast.save_pretrained(folder)
    return folder


def add_base(folder: Path, template: str) -> ChatCapabilities:
    """Prepare a base with this template as if it were added. Raises InvalidArgument (NO_CHAT_TEMPLATE)."""
    chat = prepare_template(make_tokenizer(folder, template))
    (folder / CAPABILITIES).write_text(json.dumps({"chat": dump(chat)}), encoding="utf-8")
    return chat


def find_difference(folder: Path, chat: ChatCapabilities) -> str:
    """What differs between a row and a rollout, a score or an answer of the base in the folder; empty if nothing does."""
    tokenizer, served = load_tokenizer(folder), ChatTemplate(folder)
    for messages in (CHAT[:2], CHAT):
        row = encode("row", messages, tokenizer)
        prompt, answer = row.tokens[: row.prompt_length], row.tokens[row.prompt_length :]
        asked = [ChatMessage(message["role"], message["content"]) for message in messages[:-1]]
        thinking = prompt_tokens("row", messages[:-1], tokenizer, thinking=True)
        is_alike = {
            "the beginning of a rollout": prompt == prompt_tokens("row", messages[:-1], tokenizer),
            "the beginning of a rollout with a thought": thinking == served.encode(asked, thinking=True),
            "the beginning of an answer": prompt == served.encode(asked),
            "a score": (prompt, answer) == served.encode_answered(asked, messages[-1]["content"]),
            "the answer of a row": tokenizer.decode(answer) == f"{messages[-1]['content']}{chat.end}",
            "the end of a rollout": answer[-1] in chat.ends,
            "the end of an answer": answer[-1] in served.ends(None),
        }
        if not all(is_alike.values()):
            return f"differs: {', '.join(name for name, alike in is_alike.items() if not alike)}"
    return ""


def try_templates() -> dict[str, str]:
    """What came of each template: YES, the sentence of its refusal when a base with it is added, or what differs."""
    return {name: _try(template) for name, template in read_shipped().items()}


def _try(template: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        try:
            return find_difference(Path(folder), add_base(Path(folder), template)) or YES
        except InvalidArgument as error:
            return f"{error.reason}: {error.message}"
        except Exception as error:
            return f"differs: {type(error).__name__}"


def summarise_templates(outcomes: Mapping[str, str]) -> dict[str, object]:
    """The bench's figures."""
    wrong = {name: outcome for name, outcome in outcomes.items() if outcome.startswith("differs")}
    refused = {name: outcome for name, outcome in outcomes.items() if outcome != YES and name not in wrong}
    return {
        "templates": len(outcomes),
        "templates_ok": len(outcomes) - len(wrong),
        "templates_refused_at_add": refused,
        "templates_wrong": wrong,
    }


def describe_templates(outcomes: Mapping[str, str]) -> str:
    """The section of docs/bases.md."""
    rows = "\n".join(f"| {name} | {outcome} |" for name, outcome in outcomes.items())
    return (
        "A tokenizer with each chat template that trl ships, also those for training, goes through what adding a base does to it. `yes` means "
        "that a training row, a rollout, a scored answer and a served answer have the same tokens up to where the answer begins, that they end "
        "at the same token, and that rollouts and answers with a thought begin alike.\n\n| template | alike |\n|---|---|\n"
        + rows
    )
