"""The chat template of a base, as training and serving use it: found out and stored when the base is added.

Nobody decides by a model's name: what a template can do is found out by rendering one chat in several ways.
"""

import json
import re
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Any

from services.training.bases.files import load_tokenizer, read_json
from services.training.domain import ChatCapabilities
from tailor.chat import ANSWER, QUESTION, THINKING, count_equal, encode_end, end_tokens, find_frame, render
from tailor.errors import InvalidArgument, Reason

TEMPLATE = "chat_template.jinja"
SYSTEM = {"role": "system", "content": "Be brief."}
THOUGHT = "It was in March."
# The fields of a message in which templates look for a thought.
THOUGHTFUL = {**ANSWER, "reasoning_content": THOUGHT, "thinking": THOUGHT}
# The beginning of a thought at the end of a prompt, such as `<think>`.
OPEN_TAG = re.compile(r"<([\w:.-]+)>\s*$")
# The condition, in a template, of an answer without a thought.
QUIET = f"not ({THINKING} | default(false))"


def prepare_template(base: Path) -> ChatCapabilities:
    """Store the template with which the base in a folder is trained and served, and return what it can do.

    Raises InvalidArgument (NO_CHAT_TEMPLATE) if it renders no row of one turn, or nothing ends an answer.
    """
    from jinja2 import TemplateError

    tokenizer = load_tokenizer(base)
    own = tokenizer.get_chat_template()
    try:
        quiet, is_own = _use(tokenizer, own), True
        if not _keeps_turns(tokenizer) and (shipped := _find_training_template(tokenizer, own)):
            quiet, is_own = _use(tokenizer, shipped), False
            if not _keeps_turns(tokenizer):
                quiet, is_own = _use(tokenizer, own), True
        chat = _describe(base, tokenizer, quiet=quiet, own_template=is_own)
    except (TemplateError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise InvalidArgument(
            Reason.NO_CHAT_TEMPLATE,
            f"The chat template renders no question with its answer ({type(error).__name__}), so no row can be learned. "
            "Use an instruction-tuned model.",
        ) from None
    if tokenizer.chat_template != own:
        (base / TEMPLATE).write_text(tokenizer.chat_template, encoding="utf-8")
    return chat


def add_template(base: Path) -> str:
    """Give a base without a chat template the one that trl ships for its family. Returns the family; empty if nothing was added."""
    if (base / TEMPLATE).exists() or read_json(base / "tokenizer_config.json").get("chat_template"):
        return ""
    family = str(read_json(base / "config.json").get("model_type", "")).removesuffix("_text")
    shipped = files("trl").joinpath("chat_templates", f"{family}{Path(TEMPLATE).suffix}")
    if not family.isidentifier() or not shipped.is_file():
        return ""
    (base / TEMPLATE).write_text(shipped.read_text(encoding="utf-8"), encoding="utf-8")
    return family


def _use(tokenizer: Any, template: str) -> str:
    """Give the tokenizer the template, with thoughts off unless THINKING is set. Returns what keeps the base from thinking."""
    switch = _find_switch(tokenizer, template)
    if switch:
        tokenizer.chat_template = template
        is_on = _prompt(tokenizer) != _prompt(tokenizer, **{switch: False})
        # On a separate line: the template's first line is read as before.
        on = "" if is_on else f"{{% else %}}{{% set {switch} = true %}}"
        template = f"{{% if {QUIET} %}}{{% set {switch} = false %}}{on}{{% endif %}}\n{template}"
    tokenizer.chat_template = template
    tail = _find_tail(tokenizer)
    if tail:
        literal = json.dumps(tail, ensure_ascii=False)
        ending = f"{{% if add_generation_prompt and {QUIET} %}}{{{{ {literal} }}}}{{% endif %}}"
        tokenizer.chat_template = template.removesuffix("\n") + ending
    find_frame.cache_clear()
    return switch or ("empty thought" if tail else "")


def _find_switch(tokenizer: Any, template: str) -> str:
    """The variable of a template that switches thinking; empty if it has none.

    Answers begin differently by it. If none does that, it is one that adds to the prompt when it is true and nothing when it is false, in a
    template that renders thoughts.
    """
    tokenizer.chat_template = template
    default = _prompt(tokenizer)
    adding = ""
    for name in _read_variables(template):
        with suppress(Exception):  # a template may do anything with a value that it does not expect
            if _opening(tokenizer, **{name: False}) != _opening(tokenizer, **{name: True}):
                return name
            off, on = (_prompt(tokenizer, **{name: value}) for value in (False, True))
            if off == default != on:
                adding = adding or name
    return adding if _renders_thoughts(tokenizer) else ""


def _read_variables(template: str) -> list[str]:
    """The variables that a template takes from its caller, in order."""
    from jinja2.meta import find_undeclared_variables
    from transformers.utils import chat_template_utils

    environment = chat_template_utils._compile_jinja_template(template).environment
    given = {"messages", "tools", "documents", "add_generation_prompt", "bos_token", "eos_token", THINKING}
    return sorted(find_undeclared_variables(environment.parse(template)) - given)


def _prompt(tokenizer: Any, **variables: Any) -> str:
    return render([QUESTION], tokenizer, add_generation_prompt=True, **variables)


def _opening(tokenizer: Any, **variables: Any) -> str:
    """The end of a prompt: what is not there unless an answer is asked for."""
    prompt = _prompt(tokenizer, **variables)
    return prompt[count_equal(prompt, render([QUESTION], tokenizer, **variables)) :]


def _find_open_tag(tokenizer: Any, **variables: Any) -> str:
    """The tag that ends a prompt, if a row without a thought does not have it: that of a thought."""
    prompt = _prompt(tokenizer, **variables)
    tag = OPEN_TAG.search(prompt)
    return tag[1] if tag and not _render_answered(tokenizer, **variables)[0].startswith(prompt) else ""


def _find_tail(tokenizer: Any) -> str:
    """The text that a prompt needs so that the answer follows at once: what the template writes before an answer without a thought.

    Blanks on the answer's line stay with the answer.
    """
    prompt = _prompt(tokenizer)
    before = _render_answered(tokenizer)[0]
    if before.startswith(prompt):
        return before.removeprefix(prompt).rstrip(" ")
    tag = _find_open_tag(tokenizer)
    return f"\n</{tag}>\n\n" if tag else ""


def _render_answered(tokenizer: Any, **variables: Any) -> tuple[str, str]:
    """The text of a row before and after its answer. Raises jinja2.TemplateError, also if the answer is not there."""
    from jinja2 import TemplateError

    before, found, after = render([QUESTION, ANSWER], tokenizer, **variables).rpartition(ANSWER["content"])
    if not found:
        raise TemplateError("The answer is left out.")
    return before, after


def _keeps_turns(tokenizer: Any) -> bool:
    """True if an answer and its end stand in the next prompt as the base wrote them."""
    from jinja2 import TemplateError

    try:
        following = render([QUESTION, ANSWER, QUESTION], tokenizer, add_generation_prompt=True)
    except TemplateError:
        return False
    frame = find_frame(tokenizer)
    return following.startswith(f"{_prompt(tokenizer)}{frame.before}{ANSWER['content']}{frame.end}")


def _find_training_template(tokenizer: Any, own: str) -> str | None:
    """The template for training that trl ships for this one; None if it has none."""
    from trl.chat_template_utils import get_training_chat_template

    used, tokenizer.chat_template = tokenizer.chat_template, own
    try:
        template: str | None = get_training_chat_template(tokenizer)
    except Exception:  # noqa: BLE001 - ValueError for a template that it does not know; templates may refuse the chats that it tries
        template = None
    tokenizer.chat_template = used
    return template


def _renders_thoughts(tokenizer: Any) -> bool:
    with suppress(Exception):
        return THOUGHT in render([QUESTION, THOUGHTFUL], tokenizer)
    return False


def _find_thought(tokenizer: Any) -> tuple[str, str]:
    """The text before a thought, and between thought and answer, as a thinking base writes them; both are empty if it does not think."""
    prompt = _prompt(tokenizer, **{THINKING: True})
    with suppress(Exception):
        row = render([QUESTION, THOUGHTFUL], tokenizer, **{THINKING: True})
        before, found, after = row.rpartition(THOUGHT)
        if found and before.startswith(prompt):
            return before.removeprefix(prompt).strip(), after.partition(ANSWER["content"])[0].strip()
    tag = _find_open_tag(tokenizer, **{THINKING: True})
    return ("", f"</{tag}>") if tag else ("", "")


def _describe(base: Path, tokenizer: Any, *, quiet: str, own_template: bool) -> ChatCapabilities:
    _render_answered(tokenizer)
    if not encode_end(tokenizer):
        raise InvalidArgument(
            Reason.NO_CHAT_TEMPLATE,
            "Neither the chat template nor `eos_token` in tokenizer_config.json ends an answer, so the model would never stop. "
            "Name its end token there, or use an instruction-tuned model.",
        )
    path = base / "generation_config.json"
    declared = read_json(path).get("eos_token_id") if path.exists() else None
    start, end = _find_thought(tokenizer)
    return ChatCapabilities(
        ends=tuple(end_tokens(tokenizer, declared)),
        end=find_frame(tokenizer).end,
        keeps_turns=_keeps_turns(tokenizer),
        has_system=_takes_system(tokenizer),
        own_template=own_template,
        thought_start=start,
        thought_end=end,
        quiet=quiet,
    )


def _takes_system(tokenizer: Any) -> bool:
    from jinja2 import TemplateError

    try:
        return SYSTEM["content"] in render([SYSTEM, QUESTION], tokenizer, add_generation_prompt=True)
    except TemplateError:
        return False
