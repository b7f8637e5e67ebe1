"""A base's chat template, rendered as transformers does: whole conversations, and the tokens that it adds to any, measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NoReturn

from tailor.chat import ChatTokenizer

# Shapes of conversations that are measured, by the first letters of their roles. Templates may have a system prompt of their own.
SHAPES = ("ua", "sua", "uaua", "suaua", "uauaua", "suauaua")
ROLES = {"s": "system", "u": "user", "a": "assistant"}
SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")
# Stands for a content while a template is rendered.
MARK = "\u241f"
# Contents whose tokens may depend on the template's text before them. The first one measures the template.
CONTENTS = ("x", "Why?", "2 parts", "- a list", "| a |", '"So"', "(b)", "Ü", "The end.")


@dataclass(frozen=True)
class TemplateTokens:
    """The tokens that a template adds: for each message of user and assistant, in pairs, and once, without or with a system prompt.

    One more is added for each content that the tokenizer may join with the template's text: one with blanks at an end, or any if it joins
    words too.
    """

    pair: int
    opening: int
    system_opening: int
    joins_words: bool = False

    def count(self, contents: Sequence[str], *, has_system: bool) -> int:
        """The tokens added to a conversation of user and assistant in turn."""
        seams = len(contents) if self.joins_words else sum(text.strip() != text or not text for text in contents)
        opening = self.system_opening if has_system else self.opening
        return opening - (-self.pair * len(contents) // 2) + seams


@dataclass(frozen=True)
class TemplateText:
    """The text of a template and what it is rendered with. Can be pickled."""

    text: str
    variables: Mapping[str, str | None]

    @classmethod
    def read(cls, description: Mapping[str, Any], template_file: str | None) -> "TemplateText":
        """From tokenizer_config.json and the text of chat_template.jinja, if there is one. Raises ValueError without a template."""
        tokens = {name: text for name in SPECIAL if (text := _token_text(description.get(name))) is not None}
        return cls(template_file or find_template(description), {**tokens, "tools": None, "documents": None})


class TemplateTokenizer(ChatTokenizer):
    """Encodes conversations as transformers does, without importing it. Thread-safe."""

    def __init__(self, tokenizer: Any, template: TemplateText) -> None:
        self._tokenizer = tokenizer
        self._template = _compile(template.text)
        self._variables = template.variables
        self._added: Mapping[int, Any] = tokenizer.get_added_tokens_decoder()

    @property
    def eos_token(self) -> str | None:
        return self._variables.get("eos_token")

    @property
    def added_tokens_decoder(self) -> Mapping[int, Any]:
        return self._added

    def apply_chat_template(self, conversation: Any, **options: Any) -> str:
        """The text. Raises jinja2.TemplateError if the template refuses the conversation."""
        prompted = bool(options.get("add_generation_prompt"))
        return str(self._template.render(messages=conversation, add_generation_prompt=prompted, **self._variables))

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids)


def measure_template(tokenizer: Any, source: TemplateText) -> TemplateTokens:
    """Measure a template: exact if all shapes of conversations agree, an upper bound otherwise.

    Raises ValueError if it is not a template, or if it renders no conversation.
    """
    template = _compile(source.text)
    shapes = {shape: text for shape in SHAPES if (text := _render(template, source.variables, shape, MARK)) is not None}
    first, *others = (_count_added(tokenizer, shapes, content) for content in CONTENTS)
    if not shapes:
        raise ValueError("chat_template")
    joins = any(other != first for other in others) or any(_joins_words(text) for text in shapes.values())
    return replace(_fit(first), joins_words=joins)


def _joins_words(text: str) -> bool:
    """True if a content stands behind a letter, a digit or a blank, with which a tokenizer may join it."""
    before = [part[-1:] for part in text.split(MARK)[:-1]]
    return any(last.isalnum() or last == " " for last in before)


def _fit(added: Mapping[str, int]) -> TemplateTokens:
    """The smallest tokens per pair and per opening that no shape exceeds."""
    pair = max([0, *(count - added[shape[:-2]] for shape, count in added.items() if shape[:-2] in added)])
    openings = {
        has_system: max(
            count - pair * (len(shape) // 2) for shape, count in added.items() if (shape[0] == "s") == has_system
        )
        for has_system in {shape[0] == "s" for shape in added}
    }
    # A template without system prompts treats one like another message, or refuses it.
    known = max(openings.values()) + pair
    return TemplateTokens(pair, openings.get(False, known), openings.get(True, known))


def _count_added(tokenizer: Any, shapes: Mapping[str, str], content: str) -> dict[str, int]:
    """The tokens that the template adds to each shape."""
    alone = len(tokenizer.encode(content, add_special_tokens=False))
    texts = {shape: text.replace(MARK, content) for shape, text in shapes.items()}
    return {
        shape: len(tokenizer.encode(text, add_special_tokens=False)) - alone * len(shape)
        for shape, text in texts.items()
    }


def _render(template: Any, variables: Mapping[str, str | None], shape: str, content: str) -> str | None:
    """A shape as text; None if the template refuses it, as some do with a system prompt.

    The prompt may have an empty thought that the template leaves out once it is answered.
    """
    from jinja2 import TemplateError

    messages = [{"role": ROLES[letter], "content": content} for letter in shape]
    try:
        whole = str(template.render(messages=messages, add_generation_prompt=False, **variables))
        prompt = str(template.render(messages=messages[:-1], add_generation_prompt=True, **variables))
    except TemplateError:
        return None
    return whole if whole.startswith(prompt) else prompt + content + whole.rpartition(content)[2]


def find_template(description: Mapping[str, Any]) -> str:
    """The default template of a tokenizer_config.json. Raises ValueError if it has none."""
    template = description.get("chat_template")
    if isinstance(template, list):
        template = next((entry["template"] for entry in template if entry.get("name") == "default"), None)
    if not isinstance(template, str):
        raise ValueError("chat_template")
    return template


def _compile(template: str) -> Any:
    """Compile a template with what transformers offers: loop controls, `generation` blocks, dates and errors.

    Raises ValueError if it is not a template.
    """
    from jinja2 import TemplateSyntaxError
    from jinja2.ext import Extension
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """Renders what stands inside of `{% generation %}` blocks, which mark the assistant's words."""

        tags = {"generation"}  # noqa: RUF012 - as jinja2 wants it

        def parse(self, parser: Any) -> Any:
            """The nodes of the block."""
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"]
    )
    environment.globals |= {"raise_exception": _refuse, "strftime_now": lambda form: datetime.now().strftime(form)}
    try:
        return environment.from_string(template)
    except TemplateSyntaxError as error:
        raise ValueError("chat_template") from error


def _refuse(message: str) -> NoReturn:
    from jinja2 import TemplateError

    raise TemplateError(message)


def _token_text(token: object) -> str | None:
    """A special token in either of its two forms: a text, or an object with `content`."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else None
