"""Rows, rollouts, scores and answers of every chat template that trl ships begin and end alike."""

from pathlib import Path

import pytest

from bench.bases_templates import CHAT, add_base, find_difference, make_tokenizer, read_shipped
from services.inference.domain import ChatMessage
from services.inference.engines.chat import ChatTemplate
from services.training.bases.chat_probe import OPEN_TAG, prepare_template
from services.training.bases.files import load_tokenizer
from services.training.methods.answers import Prompt
from services.training.methods.rewards import Rewarder
from tailor.chat import encode
from tailor.errors import InvalidArgument
from tailor.thoughts import ThoughtSplitter

pytestmark = pytest.mark.integration

SHIPPED = {name: text for name, text in read_shipped().items() if not name.endswith("_training")}
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


@pytest.mark.parametrize("name", [name for name in SHIPPED if name not in REFUSED])
def test_a_row_a_rollout_a_score_and_an_answer_begin_and_end_alike(name: str, tmp_path: Path) -> None:
    chat = add_base(tmp_path, SHIPPED[name])
    assert chat.end == next(ENDS[family] for family in sorted(ENDS, reverse=True) if name.startswith(family))
    assert find_difference(tmp_path, chat) == ""
    tokenizer = load_tokenizer(tmp_path)
    row = encode("r1", CHAT, tokenizer)
    assert not OPEN_TAG.search(tokenizer.decode(row.tokens[: row.prompt_length]))
    assert chat.keeps_turns is (name not in ONLY_LAST_TURN)
    if chat.keeps_turns:
        ((start, stop),) = row.earlier
        assert tokenizer.decode(row.tokens[start:stop]) == f"{CHAT[1]['content']}{chat.end}"


@pytest.mark.parametrize("name", [name for name in SHIPPED if name not in REFUSED])
def test_a_thought_is_split_off_however_its_text_is_cut_and_gets_no_reward(name: str, tmp_path: Path) -> None:
    chat = add_base(tmp_path, SHIPPED[name])
    served = ChatTemplate(tmp_path)
    assert (served.thought is not None) is bool(chat.thought_end)
    if served.thought is None:
        return
    asked = [ChatMessage("user", "Which control failed?")]
    quiet, thinking = served.encode(asked), served.encode(asked, thinking=True)
    assert (quiet != thinking) is bool(chat.quiet)
    tokenizer = load_tokenizer(tmp_path)
    row, prompt = [*encode("r1", CHAT[:2], tokenizer).tokens], Prompt("r1", (CHAT[0],), thinking)
    rewarder = Rewarder(
        [(1.0, lambda whole, _: [2.0 if tokens == row else 1.0 for tokens in whole])], tokenizer, served.thought
    )
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
        answers = [f"{written}{chat.end}", f"{written} No.{chat.end}", f"{chat.thought_start}It was"]
        encoded = [tokenizer.encode(text, add_special_tokens=False) for text in answers]
        assert rewarder.read(encoded) == ["The second one.", "The second one. No.", None]
        assert rewarder.rewards([prompt] * 3, encoded) == [2.0, 1.0, 0.0]


@pytest.mark.parametrize("name", REFUSED)
def test_a_template_that_renders_no_text_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="NO_CHAT_TEMPLATE"):
        prepare_template(make_tokenizer(tmp_path, SHIPPED[name]))
