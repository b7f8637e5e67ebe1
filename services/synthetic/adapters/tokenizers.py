"""Tokenizers of the bases in the models bucket, through the Rust library `tokenizers`: neither torch nor transformers is imported."""

import itertools
import json
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from services.synthetic.adapters.chat_template import TemplateText, TemplateTokenizer, TemplateTokens, measure_template
from services.synthetic.ports import TokenCounter, Tokenizers
from tailor.chat import encode
from tailor.errors import FailedPrecondition, InvalidArgument, NotFound, Reason
from tailor.storage.buckets import MODELS
from tailor.storage.protocol import ObjectStore
from tailor.storage.ref import Ref

TOKENIZER, DESCRIPTION, TEMPLATE, CONFIG = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "config.json",
)
# Configurations that name the context otherwise than transformers does today.
CONTEXT_FIELDS = ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length", "n_ctx")
# Texts that the library encodes in one call, and their characters; an encoding takes about 100 bytes per token.
BATCH_TEXTS, BATCH_CHARS = 1024, 4_000_000
MAX_BASES = 4
# Characters of each end of a message by which a row is checked: many times the longest token.
END_CHARS = 100
# About 140 bytes each. What is forgotten costs 8 microseconds a word.
MAX_WORDS = 60_000
# Those of the last few documents, whose rows repeat them.
MAX_SENTENCES, MAX_PARAGRAPHS = 5_000, 1_000
# Ends and beginnings of words: every kind of sign that tokenizers tell apart.
# fmt: off
SIGNS = (
    "a", "Z", "7", ".", ",", "'", "'s", "é", "n\u0303", "中", "ы", "…", "€", "_", "-", '"', ")", "😀", "a\n", "\nb", ".\n\n", "\u00a0",
)
# fmt: on
GAPS = (" ", "  ", "   ", " \n", " \t")
LINE_GAPS = ("\n", "\n\n", "\n\n\n", "\n ", "\n\t", "\n \n")
# Stands for a cut while a text is split.
CUT = "\0"


@dataclass(frozen=True)
class WordRule:
    """Cuts texts into words, each with the blanks before it, and into sentences and paragraphs, which are whole words.

    A sentence ends between the two signs of each of the `ends`. `gaps` are those before which the words are cut.
    """

    word: re.Pattern[str]
    ends: tuple[tuple[str, str], ...]
    gaps: tuple[str, ...]
    has_paragraphs: bool = False

    def paragraphs(self, text: str) -> list[str]:
        """The paragraphs of a text, each with the empty line before it; one if blanks stand before an empty line."""
        first, *rest = text.split("\n\n") if self.has_paragraphs else [text]
        if not rest or any(not part or part[-1].isspace() for part in (first, *rest[:-1])):
            return [text]
        return [first, *(f"\n\n{part}" for part in rest)]

    def words(self, text: str) -> list[str]:
        """The words of a sentence."""
        return self.word.findall(text)

    def sentences(self, text: str) -> list[str]:
        """The sentences of a paragraph."""
        if CUT in text:
            return [text]
        for last, first in self.ends:
            text = text.replace(last + first, f"{last}{CUT}{first}")
        return text.split(CUT)


# For tokenizers whose tokens hold line breaks with what is before them, such as `.\n`: line breaks stay inside of words.
AT_BLANKS = WordRule(re.compile(r"\s*\S+(?:[^\S ]\s*\S*)*|\s+"), ((".", " "), ("-", " ")), GAPS)
# Gives far fewer different words.
AT_LINES = WordRule(
    re.compile(r"\s*\S+(?:[^\S \n]\s*\S*)*|\s+"),
    ((".", " "), ("-", " "), (".", "\n"), (":", "\n")),
    GAPS + LINE_GAPS,
    has_paragraphs=True,
)


Counter = Callable[[Sequence[str]], list[int]]


class PartCounts:
    """Counts the tokens of texts by those of their parts, and remembers the latter. Thread-safe: threads at worst count a part twice."""

    def __init__(self, split: Callable[[str], list[str]], count_parts: Counter, limit: int) -> None:
        self._split = split
        self._count_parts = count_parts
        self._limit = limit
        self._known: dict[str, int] = {}

    def count(self, texts: Sequence[str]) -> list[int]:
        """The tokens of each text."""
        texts_parts = list(map(self._split, texts))
        known = self._learn(set(itertools.chain.from_iterable(texts_parts)))
        return [sum(map(known.__getitem__, parts)) for parts in texts_parts]

    def _learn(self, parts: set[str]) -> dict[str, int]:
        """The counts of at least these parts. A full memory is replaced, not emptied: another thread may be reading it."""
        known = self._known
        if len(known) + len(parts) > self._limit:
            known = self._known = {}
        new = list(parts.difference(known))
        known.update(zip(new, self._count_parts(new), strict=True))
        return known


def count_by_words(encode: Counter, rule: WordRule) -> PartCounts:
    """Counts texts by their paragraphs, these by their sentences, and these by their words; `encode` counts those."""
    sentences = PartCounts(rule.words, encode, MAX_WORDS)
    paragraphs = PartCounts(rule.sentences, sentences.count, MAX_SENTENCES)
    return PartCounts(rule.paragraphs, paragraphs.count, MAX_PARAGRAPHS)


def find_word_rule(tokenizer: Any) -> WordRule | None:
    """The rule by which the tokens of words add up to those of their text; None if the tokenizer may join any two words."""
    if tokenizer.pre_tokenizer is None or any(set(" \n") & set(token.content.strip()) for token in _added(tokenizer)):
        return None
    return next((rule for rule in (AT_LINES, AT_BLANKS) if _adds_up(tokenizer, rule)), None)


def _adds_up(tokenizer: Any, rule: WordRule) -> bool:
    """True if the tokenizer begins a new token at every word of a text that has all gaps between all signs."""
    text = "".join(f"{end}{gap}{sign}" for end, gap, sign in itertools.product(SIGNS, rule.gaps, SIGNS))
    starts = {start for _, (start, _) in tokenizer.pre_tokenizer.pre_tokenize_str(text)}
    parts = rule.words(text)
    encodings = tokenizer.encode_batch(parts, add_special_tokens=False)
    is_sum = sum(map(len, encodings)) == len(tokenizer.encode(text, add_special_tokens=False))
    return is_sum and starts.issuperset(itertools.accumulate(map(len, parts[:-1])))


def _added(tokenizer: Any) -> list[Any]:
    return list(tokenizer.get_added_tokens_decoder().values())


@dataclass(frozen=True)
class BaseTokenCounter(TokenCounter):
    """Counts tokens with a `tokenizers.Tokenizer`. Thread-safe; can be pickled."""

    tokenizer: Any
    tokenizer_digest: str
    context: int
    template: TemplateTokens
    template_text: TemplateText

    @property
    def digest(self) -> str:
        return self.tokenizer_digest

    @property
    def context_tokens(self) -> int:
        return self.context

    def template_tokens(self, contents: Sequence[str], *, has_system: bool) -> int:
        return self.template.count(contents, has_system=has_system)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (
            self.tokenizer.to_str(),
            self.tokenizer_digest,
            self.context,
            self.template,
            self.template_text,
        )

    def can_encode(self, messages: Sequence[tuple[str, str]]) -> bool:
        chat = [{"role": role, "content": _ends(content)} for role, content in messages]
        try:
            encode("", chat, self.chats)
        except InvalidArgument:
            return False
        return True

    @cached_property
    def chats(self) -> TemplateTokenizer:
        """Encodes conversations."""
        # A second tokenizer: the one that counts reads control tokens as plain characters, and the template's are control tokens.
        return TemplateTokenizer(_parse_tokenizer(self.tokenizer.to_str()), self.template_text)

    def count(self, texts: Sequence[str]) -> list[int]:
        return self._encode(texts) if self._words is None else self._words.count(texts)

    @cached_property
    def _words(self) -> PartCounts | None:
        """Counts by word: the rows of a document repeat its words many times. None if this tokenizer's tokens can join two words."""
        rule = find_word_rule(self.tokenizer)
        return None if rule is None else count_by_words(self._encode, rule)

    def _encode(self, texts: Sequence[str]) -> list[int]:
        encode = getattr(self.tokenizer, "encode_batch_fast", self.tokenizer.encode_batch)
        batches = (encode(batch, add_special_tokens=False) for batch in split_batches(texts))
        return [len(encoding) for batch in batches for encoding in batch]


class StoredTokenizers(Tokenizers):
    """Counters of the bases in the models bucket, kept in memory. Thread-safe; bases are loaded one at a time."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._counters: dict[str, BaseTokenCounter] = {}
        self._loading = threading.Lock()

    def for_base(self, base: str) -> TokenCounter:
        """Raises also FailedPrecondition (NO_TOKENIZER, INVALID_MANIFEST, CORRUPT_OBJECT, BASE_UNREADABLE)."""
        with self._loading:
            if base not in self._counters:
                counter = self._load(base)
                if len(self._counters) >= MAX_BASES:
                    self._counters.pop(next(iter(self._counters)))
                self._counters[base] = counter
            return self._counters[base]

    def _load(self, base: str) -> BaseTokenCounter:
        files = self._read_manifest(base)
        if TOKENIZER not in files:
            raise FailedPrecondition(
                Reason.NO_TOKENIZER,
                f"The base {base} has no {TOKENIZER}, by which rows are measured. Add it again under another name with "
                "`tailor model add NAME SOURCE`, which writes that file, and name the new base in the specialist.",
                base=base,
            )
        texts = {name: self._store.get(files[name]).decode() for name in _file_names(files)}
        try:
            return make_counter(texts, files[TOKENIZER].sha256)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise FailedPrecondition(
                Reason.BASE_UNREADABLE,
                f"The tokenizer of the base {base} cannot be read ({type(error).__name__}). Add another base.",
                base=base,
            ) from None

    def _read_manifest(self, base: str) -> Mapping[str, Ref]:
        try:
            data = self._store.read(MODELS, f"bases/{base}/manifest.json")
        except NotFound:
            raise FailedPrecondition(
                Reason.UNKNOWN_BASE,
                f"The base {base} is not in the models bucket. Add it with `tailor model add {base} SOURCE`.",
                base=base,
            ) from None
        try:
            files = json.loads(data)["files"]
            return {
                str(file["path"]): Ref(f"s3://{MODELS}/{file['key']}", str(file["sha256"]), int(file["size_bytes"]))
                for file in files
            }
        except (ValueError, KeyError, TypeError):
            raise FailedPrecondition(
                Reason.INVALID_MANIFEST,
                f"The manifest of the base {base} cannot be read. Add the base again.",
                base=base,
            ) from None


def make_counter(texts: Mapping[str, str], digest: str) -> BaseTokenCounter:
    """A counter from the texts of a base's files. Raises ValueError, TypeError or KeyError if they are not a tokenizer and a template."""
    tokenizer = _parse_tokenizer(texts[TOKENIZER])
    # These settings of the file are for other programs; they would cut or fill every text.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    source = TemplateText.read(json.loads(texts.get(DESCRIPTION, "{}")), texts.get(TEMPLATE))
    template = measure_template(tokenizer, source)
    return BaseTokenCounter(_plain(tokenizer), digest, read_context(json.loads(texts[CONFIG])), template, source)


def _ends(content: str) -> str:
    """Both ends of a long message, because tokens and templates join messages there only; all of it if it may have marks of a template.

    Encoding whole rows would take more than twice the time of making them.
    """
    if len(content) <= 2 * END_CHARS or "<" in content:
        return content
    return f"{content[:END_CHARS]} … {content[-END_CHARS:]}"


def _restore(
    tokenizer: str, digest: str, context: int, template: TemplateTokens, source: TemplateText
) -> BaseTokenCounter:
    """A counter in another process."""
    return BaseTokenCounter(_plain(_parse_tokenizer(tokenizer)), digest, context, template, source)


def _plain(tokenizer: Any) -> Any:
    """The tokenizer, set to read control tokens in a text as plain characters: training breaks them up (`tailor.chat`)."""
    tokenizer.encode_special_tokens = True
    return tokenizer


def _parse_tokenizer(text: str) -> Any:
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str(text)
    except Exception as error:
        # The library raises nothing narrower.
        raise ValueError(TOKENIZER) from error


def read_context(config: Mapping[str, Any]) -> int:
    """The longest sequence by a base's configuration. Raises KeyError if it names none."""
    nested = config.get("text_config")
    parts = [nested, config] if isinstance(nested, dict) else [config]
    lengths = (part.get(name) for part in parts for name in CONTEXT_FIELDS)
    for length in lengths:
        if isinstance(length, int) and length > 0:
            return length
    raise KeyError(CONTEXT_FIELDS[0])


def split_batches(texts: Sequence[str]) -> Iterable[list[str]]:
    """The texts in batches that are encoded at once, in order."""
    batch: list[str] = []
    chars = 0
    for text in texts:
        if batch and (len(batch) >= BATCH_TEXTS or chars + len(text) > BATCH_CHARS):
            yield batch
            batch, chars = [], 0
        batch.append(text)
        chars += len(text)
    if batch:
        yield batch


def _file_names(files: Mapping[str, Ref]) -> list[str]:
    return [name for name in (TOKENIZER, DESCRIPTION, TEMPLATE, CONFIG) if name in files]
