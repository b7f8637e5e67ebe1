"""Rows, rollouts, scores and answers of every chat template that trl ships begin and end alike."""

import json
import re
from pathlib import Path

import pytest
import trl

from services.inference.adapters.model_store import CAPABILITIES
from services.inference.domain import ChatMessage
from services.inference.engines.chat import ChatTemplate
from services.training.bases.chat_probe import OPEN_TAG, prepare_template
from services.training.bases.files import load_tokenizer
from services.training.methods.answers import prompt_tokens
from tailor.chat import encode
from tailor.codec import dump
from tailor.errors import InvalidArgument
from tailor.thoughts import ThoughtSplitter

pytestmark = pytest.mark.integration

SHIPPED = {
    path.stem: path.read_text(encoding="utf-8")
    for path in sorted((Path(trl.__file__).parent / "chat_templates").glob("*.jinja"))
    if not path.stem.endswith("_training")
}
CONTROL = re.compile(r"<\|[^<>|]+\|>|<｜[^<>｜]+｜>|<\w+_of_\w+>|<\|\w+>|<\w+\|>|</s>|\[gMASK\]|<sop>|<image>")
# How turns end, by the beginnings of the templates' names.
ENDS = {
    "cohere": "<|END_OF_TURN_TOKEN|>",
    "cohere2": "<|END_RESPONSE|><|END_OF_TURN_TOKEN|>",
    "deepseek": "<｜end▁of▁sentence｜>",
    "diffusion_gemma": "<turn|>",
    "gemma": "<end_of_turn>",
    "gemma4": "<turn|>",
    "glm": "<|user|>",
    "gptoss": "<|return|>",
    "lfm": "<|im_end|>",
    "llama": "<|eot_id|>",
    "muse": "<|eot|>",
    "nemotron": "<|im_end|>",
    "phi": "<|end|>",
    "qwen": "<|im_end|>",
}
# They take messages as lists of parts, with pictures, and not as texts.
REFUSED = ("idefics3", "llava_next", "smolvlm")
# Their template drops thoughts of earlier turns, or ends these otherwise, and trl's does too.
ONLY_LAST_TURN = ("deepseek_r1_distill", "deepseekv3", "gptoss")
CHAT = [
    {"role": "user", "content": "Which control failed?"},
    {"role": "assistant", "content": "The second one."},
    {"role": "user", "content": "Who owns it?"},
    {"role": "assistant", "content": "Treasury."},
]


def make_tokenizer(folder: Path, template: str) -> Path:
    """A tokenizer of bytes, with all control tokens of the templates and an end of text that no template knows."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: number for number, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(sorted({word for text in SHIPPED.values() for word in CONTROL.findall(text)}))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>", chat_template=template
    )
    fast.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", [name for name in SHIPPED if name not in REFUSED])
def test_a_row_a_rollout_a_score_and_an_answer_begin_and_end_alike(name: str, tmp_path: Path) -> None:
    chat = prepare_template(make_tokenizer(tmp_path, SHIPPED[name]))
    tokenizer, served = load_tokenizer(tmp_path), ChatTemplate(tmp_path)
    end = next(ENDS[family] for family in sorted(ENDS, reverse=True) if name.startswith(family))
    for messages in (CHAT[:2], CHAT):
        row = encode("r1", messages, tokenizer)
        asked = [ChatMessage(message["role"], message["content"]) for message in messages[:-1]]
        prompt, answer = row.tokens[: row.prompt_length], row.tokens[row.prompt_length :]
        assert tokenizer.decode(answer) == f"{messages[-1]['content']}{end}"
        assert prompt == served.encode(asked) == prompt_tokens("r1", messages[:-1], tokenizer)
        assert (prompt, answer) == served.encode_answered(asked, messages[-1]["content"])
        assert answer[-1] in chat.ends and answer[-1] in served.ends(None)
        assert not OPEN_TAG.search(tokenizer.decode(prompt))
    assert chat.keeps_turns is (name not in ONLY_LAST_TURN)
    if chat.keeps_turns:
        ((start, stop),) = row.earlier
        assert tokenizer.decode(row.tokens[start:stop]) == f"{CHAT[1]['content']}{end}"


@pytest.mark.parametrize("name", [name for name in SHIPPED if name not in REFUSED])
def test_a_thought_is_split_off_however_its_text_is_cut(name: str, tmp_path: Path) -> None:
    chat = prepare_template(make_tokenizer(tmp_path, SHIPPED[name]))
    (tmp_path / CAPABILITIES).write_text(json.dumps({"chat": dump(chat)}), encoding="utf-8")
    served = ChatTemplate(tmp_path)
    assert (served.thought is not None) is bool(chat.thought_end)
    if served.thought is None:
        return
    asked = [ChatMessage("user", "Which control failed?")]
    quiet, thinking = served.encode(asked), served.encode(asked, thinking=True)
    assert (quiet != thinking) is bool(chat.quiet)
    plain = served.thought.opener if chat.thought_start else f"{chat.thought_end}\n"
    for thought, written in (
        ("It was in March.", f"{chat.thought_start}\nIt was in March.\n{chat.thought_end}\n\nThe second one."),
        ("", f"{plain}The second one."),
    ):
        for cut in range(len(written) + 1):
            splitter = ThoughtSplitter(served.thought)
            parts = [splitter.add(written[:cut], is_last=False), splitter.add(written[cut:], is_last=True)]
            assert "".join(part.answer for part in parts) == "The second one."
            assert "".join(part.thought for part in parts) == thought


@pytest.mark.parametrize("name", REFUSED)
def test_a_template_that_renders_no_text_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="NO_CHAT_TEMPLATE"):
        prepare_template(make_tokenizer(tmp_path, SHIPPED[name]))
