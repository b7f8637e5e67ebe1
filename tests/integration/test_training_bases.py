"""Bases from a directory, a hub and an adapter: stored files, rejected sources, and killed fetches."""

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trl

from services.training.bases.files import load_tokenizer
from services.training.bases.sources import fetch
from services.training.bases.store import Fetch, StoredBases, fetch_here, fetch_in_child
from services.training.domain import Base
from tailor.chat import encode_prompt
from tailor.errors import FailedPrecondition, InvalidArgument, Unavailable
from tailor.storage.buckets import MODELS
from tests.integration.hub import COMMIT, Hub, serving
from tests.models import make_tiny_base
from tests.unit.training.stores import FileStore
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
LIMIT = 2**30


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model as a hub would serve it: in f32, in several shards, with a card."""
    from transformers import AutoModelForCausalLM

    single = make_tiny_base(tmp_path_factory.mktemp("single"), ["the house style of a report"] * 4, vocabulary=320)
    folder = tmp_path_factory.mktemp("tiny")
    AutoModelForCausalLM.from_pretrained(single).float().save_pretrained(folder, max_shard_size="200KB")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (single / name).exists():
            (folder / name).write_bytes((single / name).read_bytes())
    (folder / "README.md").write_text("---\nlicense: other\nlicense_name: house-1.0\n---\n# Small\n", encoding="utf-8")
    return folder


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "store")


def add(store: FileStore, tmp_path: Path, name: str, source: str, fetch: Fetch = fetch_here) -> Base:
    """Add a base. By default it is fetched in this process, which has loaded the model libraries."""
    *_, base = StoredBases(store, tmp_path / "scratch", fetch=fetch).add(name, source)
    assert isinstance(base, Base)
    return base


def manifest_of(store: FileStore, base: Base) -> dict[str, Any]:
    described: dict[str, Any] = json.loads(store.get(base.manifest))
    return described


def copy_folder(source: Path, target: Path, *, but: str = "") -> Path:
    target.mkdir()
    for file in source.iterdir():
        if file.name != but:
            (target / file.name).write_bytes(file.read_bytes())
    return target


def logits_of(folder: Path, adapter: Path | None = None) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if adapter is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter)
    with torch.no_grad():
        return model(input_ids=torch.arange(3, 120)[None]).logits


def test_shards_are_stored_in_bf16_with_a_correct_index(tiny: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    (tmp_path / "files").mkdir()
    fetched = fetch(f"path:{tiny}", tmp_path / "files", LIMIT)
    shards = sorted((tmp_path / "files").glob("*.safetensors"))
    assert len(shards) > 1
    tensors = {name: tensor for shard in shards for name, tensor in load_file(shard).items()}
    assert {str(tensor.dtype) for tensor in tensors.values()} == {"torch.bfloat16"}
    assert fetched.parameters == sum(tensor.numel() for tensor in tensors.values())
    index = json.loads((tmp_path / "files" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 2 * fetched.parameters
    assert fetched.licence == "house-1.0"
    assert (logits_of(tmp_path / "files") - logits_of(tiny)).abs().max() < 0.05


def test_hub_model_is_pinned_to_its_commit_and_needs_the_token(
    tiny: Path, store: FileStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy_folder(tiny, tmp_path / "hub")
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04")
    (folder / "modeling_small.py").write_text("raise SystemExit")
    (folder / "original").mkdir()
    (folder / "original" / "model.safetensors").write_bytes(b"another form of it")
    with serving(Hub(folder, token="hf_secret")) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        with pytest.raises(InvalidArgument) as refused:
            add(store, tmp_path, "small", "hub:acme/small", fetch_in_child)
        assert refused.value.reason == "MODEL_IS_GATED"
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        base = add(store, tmp_path, "small", "hub:acme/small", fetch_in_child)
    manifest = manifest_of(store, base)
    assert (manifest["source"], base.licence) == (f"hub:acme/small@{COMMIT}", "house-1.0")
    assert {Path(file["path"]).suffix for file in manifest["files"]} <= {".safetensors", ".json", ".jinja"}
    assert not [path for path in hub.asked if path.endswith((".bin", ".py")) or "original" in path]
    assert not list((tmp_path / "scratch").iterdir())


def test_unknown_large_and_unreachable_hub_models_have_different_errors(
    tiny: Path, store: FileStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(Hub(tiny)) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        for source in ("hub:acme/other", "hub:acme/small@nothing"):
            with pytest.raises(InvalidArgument) as refused:
                add(store, tmp_path, "small", source, fetch_in_child)
            assert refused.value.reason == "UNKNOWN_MODEL"
        with pytest.raises(InvalidArgument) as large:
            list(StoredBases(store, tmp_path / "scratch", 1000).add("small", "hub:acme/small@main"))
        assert large.value.reason == "BASE_TOO_LARGE"
        assert not [path for path in hub.asked if "resolve" in path]
    with pytest.raises(Unavailable) as silent:
        add(store, tmp_path, "small", "hub:acme/small", fetch_in_child)
    assert silent.value.reason == "HUB_UNAVAILABLE"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"config.json": {"architectures": ["BertModel"]}}, "NOT_CAUSAL"),
        ({"config.json": {"architectures": ["XForCausalLM"], "auto_map": {"AutoModel": "x.X"}}}, "CODE_REFUSED"),
        ({"tokenizer_config.json": {"auto_map": {"AutoTokenizer": "x.X"}}}, "CODE_REFUSED"),
        (
            {"config.json": {"architectures": ["XForCausalLM"], "quantization_config": {"quant_method": "awq"}}},
            "QUANTISED",
        ),
        ({"model.safetensors.index.json": {"weight_map": {"a": "../a.safetensors"}}}, "NOT_SAFETENSORS"),
        ({"model.safetensors.index.json": {"weight_map": {"a": "gone.safetensors"}}}, "MISSING_FILE"),
        ({"model.safetensors.index.json": {}}, "MISSING_TENSORS"),
        ({"tokenizer.json": {}}, "BASE_UNREADABLE"),
    ],
)
def test_unusable_base_is_rejected(tiny: Path, tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    folder = copy_folder(tiny, tmp_path / "copy")
    for name, content in change.items():
        (folder / name).write_text(json.dumps(content))
    (tmp_path / "files").mkdir()
    with pytest.raises(InvalidArgument) as refused:
        fetch(f"path:{folder}", tmp_path / "files", LIMIT)
    assert refused.value.reason == reason


def test_truncated_weights_are_rejected(tiny: Path, tmp_path: Path) -> None:
    folder = copy_folder(tiny, tmp_path / "copy")
    shard = sorted(folder.glob("*.safetensors"))[0]
    shard.write_bytes(shard.read_bytes()[:-100])
    (tmp_path / "files").mkdir()
    with pytest.raises(InvalidArgument) as refused:
        fetch(f"path:{folder}", tmp_path / "files", LIMIT)
    assert refused.value.reason == "NOT_SAFETENSORS"


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"num_hidden_layers": 3}, "MISSING_TENSORS"),
        ({"num_hidden_layers": 10**9}, "MISSING_TENSORS"),
        ({"num_hidden_layers": -1}, "MISSING_TENSORS"),
        ({"hidden_size": 10**12}, "MISSING_TENSORS"),
        ({"num_attention_heads": 0}, "BASE_UNREADABLE"),
        ({"num_hidden_layers": "two"}, "BASE_UNREADABLE"),
        ({"model_type": "unheard-of"}, "BASE_UNREADABLE"),
    ],
)
def test_weights_that_contradict_the_configuration_are_rejected(
    tiny: Path, tmp_path: Path, settings: dict[str, Any], reason: str
) -> None:
    folder = copy_folder(tiny, tmp_path / "copy")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **settings}))
    (tmp_path / "files").mkdir()
    with pytest.raises(InvalidArgument) as refused:
        fetch(f"path:{folder}", tmp_path / "files", LIMIT)
    assert refused.value.reason == reason


@pytest.mark.parametrize("template", ["{% for message in", "always the same", "{{ raise_exception('no') }}"])
def test_chat_template_that_cannot_render_a_question_is_rejected(tiny: Path, tmp_path: Path, template: str) -> None:
    folder = copy_folder(tiny, tmp_path / "copy")
    (folder / "chat_template.jinja").write_text(template)
    (tmp_path / "files").mkdir()
    with pytest.raises(InvalidArgument) as refused:
        fetch(f"path:{folder}", tmp_path / "files", LIMIT)
    assert refused.value.reason == "NO_CHAT_TEMPLATE"


def test_a_base_that_thinks_is_stored_with_a_template_that_asks_for_answers_without_thoughts(
    tiny: Path, store: FileStore, tmp_path: Path
) -> None:
    folder = copy_folder(tiny, tmp_path / "copy")
    own = (Path(trl.__file__).parent / "chat_templates" / "qwen3.jinja").read_text(encoding="utf-8")
    (folder / "chat_template.jinja").write_text(own, encoding="utf-8")
    base = add(store, tmp_path, "thinker", f"path:{folder}")
    files = {file["path"]: store.read(MODELS, file["key"]) for file in manifest_of(store, base)["files"]}
    found = json.loads(files["capabilities.json"])["chat"]
    assert (found["quiet"], found["thought_end"], found["own_template"]) == ("enable_thinking", "</think>", False)
    (tmp_path / "files").mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (tmp_path / "files" / name).write_bytes(files[name])
    tokenizer, asked = load_tokenizer(tmp_path / "files"), [{"role": "user", "content": "Which control failed?"}]
    assert tokenizer.decode(encode_prompt(asked, tokenizer)).endswith("assistant\n<think>\n\n</think>\n\n")
    assert tokenizer.decode(encode_prompt(asked, tokenizer, thinking=True)).endswith("assistant\n")


def test_link_out_of_the_folder_is_rejected_except_in_a_hubs_cache(tiny: Path, tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "model" / "blobs", tmp_path / "model" / "snapshots" / "0a1b"
    snapshot.mkdir(parents=True)
    copy_folder(tiny, blobs)
    for file in blobs.iterdir():
        (snapshot / file.name).symlink_to(f"../../blobs/{file.name}")
    (tmp_path / "files").mkdir()
    assert fetch(f"path:{snapshot}", tmp_path / "files", LIMIT).licence == "house-1.0"
    (tmp_path / "secret").write_text("{}")
    (snapshot / "vocab.json").symlink_to(tmp_path / "secret")
    (tmp_path / "others").mkdir()
    with pytest.raises(InvalidArgument) as refused:
        fetch(f"path:{snapshot}", tmp_path / "others", LIMIT)
    assert refused.value.reason == "LINK_REFUSED"


def test_same_weights_from_another_source_are_the_same_base(tiny: Path, store: FileStore, tmp_path: Path) -> None:
    first = add(store, tmp_path, "small", f"path:{tiny}")
    assert add(store, tmp_path, "small", f"path:{copy_folder(tiny, tmp_path / 'copy', but='README.md')}") == first
    assert manifest_of(store, first)["licence"] == "house-1.0"


def test_full_disk_is_reported_and_the_fetch_can_be_repeated(tiny: Path, store: FileStore, tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Enough for the process's own files, but not for a shard.
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(Unavailable) as refused:
            add(store, tmp_path, "small", f"path:{tiny}", fetch_in_child)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert refused.value.reason == "DISK_FULL"
    assert list((tmp_path / "scratch").iterdir()) == []
    assert add(store, tmp_path, "small", f"path:{tiny}").parameters > 0


def test_killed_fetch_leaves_no_base_and_can_be_repeated(tiny: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path\n"
        "from services.training.bases.store import StoredBases\n"
        "from tests.unit.training.stores import FileStore\n"
        "list(StoredBases(FileStore(Path(sys.argv[1])), Path(sys.argv[2])).add('small', sys.argv[3]))\n"
    )
    store, scratch = FileStore(tmp_path / "store"), tmp_path / "scratch"
    arguments = [str(store.root), str(scratch), f"path:{tiny}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    service = subprocess.Popen([sys.executable, "-c", script, *arguments], env=environment)
    wait_until(lambda: list(scratch.glob("base-*/files")), 60)
    service.send_signal(signal.SIGKILL)
    service.wait()
    assert list(scratch.glob("base-*"))
    assert StoredBases(store, scratch).list() == []
    # As if it had been killed between two files: stored files are reused, missing ones are added.
    half = tiny / "config.json"
    store.put_file(MODELS, f"bases/files/{hashlib.sha256(half.read_bytes()).hexdigest()}", half)
    assert add(store, tmp_path, "small", f"path:{tiny}").parameters > 0
    assert not list(scratch.glob("base-*"))


def store_adapter(store: FileStore, base: Base, folder: Path, **changes: Any) -> str:
    """Store a folder as a worker stores its adapter, and return its digest."""
    files = []
    for path in sorted(folder.iterdir()):
        ref = store.put_file(MODELS, f"adapters/files/{path.name}", path)
        files.append({"path": path.name, "key": ref.key, "sha256": ref.sha256, "size_bytes": ref.size_bytes})
    described = {"kind": "policy", "weights": "adapter", "base": base.name, "base_digest": base.digest, "files": files}
    data = json.dumps(described | changes).encode()
    digest = hashlib.sha256(data).hexdigest()
    store.put(MODELS, f"adapters/{digest}/manifest.json", data)
    return digest


def make_adapter(base: Path, folder: Path, **options: Any) -> Path:
    """Make an adapter that changes the base's answers."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear", init_lora_weights=False, **options)
    get_peft_model(model, config).save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    return folder


def test_merged_base_answers_like_base_with_adapter(tiny: Path, store: FileStore, tmp_path: Path) -> None:
    base = add(store, tmp_path, "small", f"path:{tiny}")
    plain = tmp_path / "plain"
    plain.mkdir()
    fetch(f"path:{tiny}", plain, LIMIT)
    adapter = make_adapter(plain, tmp_path / "adapter", use_dora=True)
    digest = store_adapter(store, base, adapter)
    merged = add(store, tmp_path, "merged", f"adapter:{digest}")
    manifest = manifest_of(store, merged)
    assert (merged.licence, manifest["source"]) == ("house-1.0", f"adapter:{digest}")
    assert (manifest["adapter_digest"], manifest["base_digest"]) == (digest, base.digest)
    files = tmp_path / "merged"
    files.mkdir()
    for file in manifest["files"]:
        (files / file["path"]).write_bytes(store.read(MODELS, file["key"]))
    expected, actual, before = logits_of(plain, adapter), logits_of(files), logits_of(plain)
    # bf16 weights are accurate to one part in 256, which moves the answers far less than the adapter does.
    scale = expected.abs().max()
    assert (actual - expected).abs().max() < 0.02 * scale
    assert (before - expected).abs().max() > 0.2 * scale
    assert (files / "tokenizer.json").read_bytes() == (plain / "tokenizer.json").read_bytes()
    again = add(store, tmp_path, "merged", f"adapter:{digest}", fetch_in_child)
    assert again == merged


def test_full_weights_become_a_base(tiny: Path, store: FileStore, tmp_path: Path) -> None:
    base = add(store, tmp_path, "small", f"path:{tiny}")
    plain = tmp_path / "plain"
    plain.mkdir()
    fetch(f"path:{tiny}", plain, LIMIT)
    digest = store_adapter(store, base, plain, weights="full")
    made = add(store, tmp_path, "made", f"adapter:{digest}")
    assert (made.licence, made.parameters) == ("house-1.0", base.parameters)


def test_adapter_that_cannot_become_a_base_is_rejected(tiny: Path, store: FileStore, tmp_path: Path) -> None:
    base = add(store, tmp_path, "small", f"path:{tiny}")
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    reward = store_adapter(store, base, tmp_path / "adapter", kind="reward")
    other = store_adapter(store, base, tmp_path / "adapter", base_digest="another")
    for digest, error, reason in (
        (reward, InvalidArgument, "NOT_A_POLICY"),
        (other, FailedPrecondition, "BASE_CHANGED"),
        ("0" * 64, InvalidArgument, "UNKNOWN_ADAPTER"),
        ("../../x", InvalidArgument, "UNKNOWN_ADAPTER"),
    ):
        with pytest.raises(error) as refused:
            add(store, tmp_path, "merged", f"adapter:{digest}")
        assert refused.value.reason == reason
