"""The tokens that a base's chat template adds to a conversation, measured by rendering it as transformers does."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, NoReturn

# Shapes of conversations that are measured, by the first letters of their roles. Templates may have a system prompt of their own.
SHAPES = ("ua", "sua", "uaua", "suaua", "uauaua", "suauaua")
ROLES = {"s": "system", "u": "user", "a": "assistant"}
CONTENT = "x"
# A text may begin with characters that the tokenizer joins with the template's, or splits from them.
SEAM_TOKENS = 1
SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")


def overhead_per_message(tokenizer: Any, description: Mapping[str, Any], template_file: str | None) -> int:
    """Upper bound of the tokens that the template adds per message, the system prompt counted as one.

    `description` is tokenizer_config.json, `template_file` the text of chat_template.jinja, if there is one. Raises ValueError if there is
    no template, or if it renders no conversation.
    """
    template = _compile(template_file or find_template(description))
    tokens = {name: text for name in SPECIAL if (text := _token_text(description.get(name))) is not None}
    variables = {**tokens, "tools": None, "documents": None}
    content = len(tokenizer.encode(CONTENT, add_special_tokens=False))
    added = [
        -(-(len(tokenizer.encode(text, add_special_tokens=False)) - content * len(shape)) // len(shape))
        for shape, text in _render_shapes(template, variables)
    ]
    if not added:
        raise ValueError("chat_template")
    return max(0, *added) + SEAM_TOKENS


def find_template(description: Mapping[str, Any]) -> str:
    """The default template of a tokenizer_config.json. Raises ValueError if it has none."""
    template = description.get("chat_template")
    if isinstance(template, list):
        template = next((entry["template"] for entry in template if entry.get("name") == "default"), None)
    if not isinstance(template, str):
        raise ValueError("chat_template")
    return template


def _render_shapes(template: Any, variables: Mapping[str, str | None]) -> Iterator[tuple[str, str]]:
    """The shapes that the template accepts; some refuse a system prompt."""
    from jinja2 import TemplateError

    for shape in SHAPES:
        messages = [{"role": ROLES[letter], "content": CONTENT} for letter in shape]
        try:
            yield shape, template.render(messages=messages, add_generation_prompt=False, **variables)
        except TemplateError:
            continue


def _compile(template: str) -> Any:
    """Compile a template with what transformers offers: loop controls, `generation` blocks, dates and errors of its own.

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
