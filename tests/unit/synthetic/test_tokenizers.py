"""Counting tokens by a base's own tokenizer and chat template."""

import hashlib
import json
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tokenizers import Tokenizer

from services.synthetic.adapters import tokenizers as adapter
from services.synthetic.adapters.tokenizers import StoredTokenizers, make_counter, read_context, split_batches
from tailor.errors import FailedPrecondition, Reason, Unavailable
from tailor.storage.buckets import MODELS
from tailor.storage.memory import MemoryStore
from tests.models import CHAT_TEMPLATE
from tests.tokenizers import TEXTS, base_files, put_base

SYSTEM_BY_ITSELF = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nBe helpful.<|im_end|>\n{% endif %}" + CHAT_TEMPLATE
)
WITHOUT_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHAT_TEMPLATE
MARKED = CHAT_TEMPLATE.replace("{{ '<|im_start|>' +", "{% generation %}{{ '<|im_start|>' +", 1).replace(
    "{% endfor %}", "{% endgeneration %}{% endfor %}", 1
)
NAMED = [{"name": "tool_use", "template": "{{ 1 }}"}, {"name": "default", "template": CHAT_TEMPLATE}]


def described(template: Any) -> str:
    return json.dumps({"chat_template": template})


def counter(**changes: Any) -> Any:
    return make_counter(base_files(**changes), "digest")


def test_counts_each_text_by_the_bases_tokenizer() -> None:
    store = MemoryStore()
    files = base_files()
    put_base(store, "tiny", files)
    counted = StoredTokenizers(store).for_base("tiny")
    short, twice, empty = counted.count([TEXTS[0], f"{TEXTS[0]} {TEXTS[0]}", ""])
    assert 0 < short < len(TEXTS[0])
    assert (2 * short <= twice <= 2 * short + 1, empty) == (True, 0)
    assert counted.digest == hashlib.sha256(files["tokenizer.json"].encode()).hexdigest()
    assert counted.context_tokens == 2048


def test_a_text_cannot_hide_tokens_in_control_words() -> None:
    # In training such a word is broken up, so it takes more than one token.
    assert counter().count(["<|im_end|>"])[0] > 1


def test_counts_long_texts_whole_whatever_the_file_says_about_truncation() -> None:
    changed = json.loads(base_files()["tokenizer.json"])
    changed["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    changed["padding"] = None
    assert counter(**{"tokenizer.json": json.dumps(changed)}).count(["x " * 100])[0] >= 100


def test_batches_do_not_change_the_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "BATCH_TEXTS", 3)
    monkeypatch.setattr(adapter, "BATCH_CHARS", 60)
    texts = [text[:length] for text in TEXTS for length in range(0, len(text), 7)]
    counted = counter()
    assert counted.count(texts) == [counted.count([text])[0] for text in texts]
    assert [text for batch in split_batches(texts) for text in batch] == texts
    assert max(map(len, split_batches(texts))) <= 3


@pytest.mark.parametrize(
    "template",
    [CHAT_TEMPLATE, SYSTEM_BY_ITSELF, WITHOUT_SYSTEM, MARKED, NAMED],
    ids=["plain", "own", "none", "marked", "named"],
)
def test_the_template_adds_at_least_its_control_tokens(template: Any) -> None:
    # <|im_start|>, "user" and a line break in one or more tokens, <|im_end|> and a line break.
    counted = counter(**{"tokenizer_config.json": described(template)})
    for turns in (2, 4, 20):
        assert counted.template_tokens(["x"] * turns, has_system=False) >= 5 * turns


def test_a_system_prompt_of_the_templates_own_counts_once_and_only_without_another() -> None:
    plain, own = counter(), counter(**{"tokenizer_config.json": described(SYSTEM_BY_ITSELF)})
    added = [
        own.template_tokens(["x"] * n, has_system=False) - plain.template_tokens(["x"] * n, has_system=False)
        for n in (2, 8)
    ]
    assert added[0] == added[1] > 4
    for turns in (2, 8):
        contents = ["x"] * turns
        assert own.template_tokens(contents, has_system=True) == plain.template_tokens(contents, has_system=True)


def test_a_content_that_may_join_with_the_template_counts_one_more() -> None:
    counted = counter()
    plain = counted.template_tokens(("Why?", "So."), has_system=False)
    assert counted.template_tokens(("\nWhy?", "So. "), has_system=False) == plain + 2
    assert counted.template_tokens(("", "So."), has_system=False) == plain + 1


def test_a_template_whose_text_joins_with_words_counts_one_more_for_each() -> None:
    # The tokenizer has "The" with a blank before it as one token, and no token for it without.
    joined = "{% for message in messages %}<|im_start|>{{ message.role }} {{ message.content }}<|im_end|>{% endfor %}"
    counted = counter(**{"tokenizer_config.json": described(joined)})
    assert counted.template.joins_words and not counter().template.joins_words
    tokenizer = Tokenizer.from_str(base_files()["tokenizer.json"])
    for contents in (("x", "x"), ("An owner", "The control failed."), ("Why?", "The end.")):
        text = f"<|im_start|>user {contents[0]}<|im_end|><|im_start|>assistant {contents[1]}<|im_end|>"
        actual = len(tokenizer.encode(text, add_special_tokens=False))
        counts = sum(counted.count(contents)) + counted.template_tokens(contents, has_system=False)
        assert actual <= counts <= actual + 2


def test_the_file_of_the_template_goes_before_the_description() -> None:
    by_file = counter(**{"chat_template.jinja": SYSTEM_BY_ITSELF})
    described_by = counter(**{"tokenizer_config.json": described(SYSTEM_BY_ITSELF)})
    assert by_file.template == described_by.template != counter().template


@pytest.mark.parametrize(
    "changes",
    [
        {"tokenizer.json": "{}"},
        {"tokenizer.json": '{"model": {"type": "unheard of"}}'},
        {"tokenizer.json": "[]"},
        {"config.json": "{}"},
        {"config.json": "not JSON"},
        {"config.json": None},
        {"tokenizer_config.json": None},
        {"tokenizer_config.json": '{"chat_template": "{% for %}"}'},
        {"tokenizer_config.json": '{"chat_template": "{{ raise_exception(\'never\') }}"}'},
    ],
)
def test_refuses_a_base_that_it_cannot_read(changes: dict[str, Any]) -> None:
    store = MemoryStore()
    put_base(store, "tiny", base_files(**changes))
    with pytest.raises(FailedPrecondition, match="tokenizer of the base tiny cannot be read") as refused:
        StoredTokenizers(store).for_base("tiny")
    assert refused.value.reason == "BASE_UNREADABLE"


def test_refuses_a_template_that_reaches_for_the_interpreter() -> None:
    template = "{{ messages.__class__.__mro__[1].__subclasses__() }}" + CHAT_TEMPLATE
    with pytest.raises(ValueError, match="chat_template"):
        counter(**{"tokenizer_config.json": described(template)})


def test_says_how_to_add_an_unknown_base() -> None:
    with pytest.raises(FailedPrecondition, match="tailor model add") as refused:
        StoredTokenizers(MemoryStore()).for_base("missing")
    assert refused.value.reason == "UNKNOWN_BASE"


def test_says_what_to_do_about_a_base_without_a_tokenizer_file() -> None:
    store = MemoryStore()
    put_base(store, "old", base_files(**{"tokenizer.json": None}))
    with pytest.raises(FailedPrecondition, match=r"has no tokenizer\.json.*Add it again under another name") as refused:
        StoredTokenizers(store).for_base("old")
    assert refused.value.reason == "NO_TOKENIZER"


def test_refuses_files_that_do_not_match_their_digest() -> None:
    store = MemoryStore()
    files = base_files()
    put_base(store, "tiny", files)
    digest = hashlib.sha256(files["tokenizer.json"].encode()).hexdigest()
    store.put(MODELS, f"bases/files/{digest}", files["tokenizer.json"].replace("A", "B").encode())
    with pytest.raises(FailedPrecondition) as refused:
        StoredTokenizers(store).for_base("tiny")
    assert refused.value.reason == "CORRUPT_OBJECT"


@pytest.mark.parametrize("manifest", [b"x", b"{}", b'{"files": [{"path": "tokenizer.json"}]}', b"[]"])
def test_refuses_a_manifest_that_it_cannot_read(manifest: bytes) -> None:
    store = MemoryStore()
    store.put(MODELS, "bases/tiny/manifest.json", manifest)
    with pytest.raises(FailedPrecondition) as refused:
        StoredTokenizers(store).for_base("tiny")
    assert refused.value.reason == "INVALID_MANIFEST"


class CountingStore(MemoryStore):
    """Counts reads, and fails the first ones."""

    def __init__(self, failures: int = 0) -> None:
        super().__init__()
        self.reads = 0
        self.failures = failures

    def read(self, bucket: str, key: str) -> bytes:
        self.reads += 1
        if self.reads <= self.failures:
            raise Unavailable(Reason.OBJECT_STORE_UNAVAILABLE, "The object store does not answer.")
        return super().read(bucket, key)


def test_reads_a_base_once_for_all_threads() -> None:
    store = CountingStore()
    put_base(store, "tiny", base_files())
    tokenizers = StoredTokenizers(store)
    with ThreadPoolExecutor(8) as pool:
        counts = list(pool.map(lambda _: tuple(tokenizers.for_base("tiny").count(list(TEXTS))), range(32)))
    assert len(set(counts)) == 1
    assert store.reads == 4  # the manifest and three files


def test_reads_again_after_the_store_did_not_answer() -> None:
    store = CountingStore(failures=1)
    put_base(store, "tiny", base_files())
    tokenizers = StoredTokenizers(store)
    with pytest.raises(Unavailable):
        tokenizers.for_base("tiny")
    assert tokenizers.for_base("tiny").count(["word"])[0] > 0


def test_keeps_only_a_few_bases_in_memory() -> None:
    store = CountingStore()
    tokenizers = StoredTokenizers(store)
    for number in range(adapter.MAX_BASES + 1):
        put_base(store, f"tiny-{number}", base_files())
        tokenizers.for_base(f"tiny-{number}")
    before = store.reads
    tokenizers.for_base(f"tiny-{adapter.MAX_BASES}")
    assert store.reads == before
    tokenizers.for_base("tiny-0")
    assert store.reads > before


def test_a_counter_can_be_sent_to_another_process() -> None:
    counted = counter()
    copied = pickle.loads(pickle.dumps(counted))
    assert copied.count(list(TEXTS)) == counted.count(list(TEXTS))
    assert (copied.template, copied.context_tokens) == (counted.template, 2048)
    assert copied.count(["<|im_end|>"]) == counted.count(["<|im_end|>"])


@pytest.mark.parametrize(
    ("config", "context"),
    [
        ({"max_position_embeddings": 8192}, 8192),
        ({"n_positions": 1024}, 1024),
        ({"text_config": {"max_position_embeddings": 131072}, "max_position_embeddings": 1}, 131072),
    ],
)
def test_reads_the_context_of_a_base(config: dict[str, Any], context: int) -> None:
    assert read_context(config) == context


def test_imports_neither_torch_nor_transformers() -> None:
    code = (
        "import sys; from tests.tokenizers import base_files\n"
        "from services.synthetic.adapters.tokenizers import make_counter\n"
        "make_counter(base_files(), '').count(['x'])\n"
        "print('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def test_processes_that_make_rows_load_neither_a_database_nor_a_server() -> None:
    """They read the module that was started again, so it must be light too."""
    code = (
        "import sys, services.synthetic.__main__\n"
        "from services.synthetic import parquet\n"
        "from services.synthetic.adapters import tokenizers\n"
        "from services.synthetic.building import segments, workers\n"
        "print({'sqlalchemy', 'grpc', 'kafka', 'openai'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
