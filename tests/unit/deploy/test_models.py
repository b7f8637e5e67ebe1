"""No model is loaded by a name that a hub could answer: from folders only, without code of theirs, and downloads name a commit."""

import ast
from collections.abc import Iterator

from tailor.local.layout import ROOT

# Where `**options` come from `load_options`, which a test below reads.
SHARED_OPTIONS = {"services/training/methods/loading.py", "services/training/methods/reward_model.py"}


def calls(name: str) -> Iterator[tuple[str, ast.Call]]:
    """Every call of a method with this name in the shipped code, with its file."""
    for folder in ("services", "tailor"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            for node in ast.walk(ast.parse(text)) if f".{name}(" in text else ():
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == name:
                    yield str(path.relative_to(ROOT)), node


def constants(node: ast.Call) -> dict[str, object]:
    """The arguments of a call that are constants."""
    return {word.arg: word.value.value for word in node.keywords if word.arg and isinstance(word.value, ast.Constant)}


def test_every_model_is_loaded_from_a_folder_and_runs_no_code_of_its_own() -> None:
    seen = 0
    for path, node in calls("from_pretrained"):
        loader = ast.unparse(node.func)
        if not loader.startswith("Auto"):
            assert loader == "PeftModel.from_pretrained", f"{path}: {loader}"
            continue
        seen += 1
        if any(word.arg is None for word in node.keywords):
            assert path in SHARED_OPTIONS, path
            continue
        words = constants(node)
        assert (words.get("local_files_only"), words.get("trust_remote_code")) == (True, False), f"{path}:{node.lineno}"
    assert seen > 5


def test_the_shared_options_keep_to_folders_too() -> None:
    text = (ROOT / "services/training/methods/loading.py").read_text(encoding="utf-8")
    for line in ('"local_files_only": True', '"trust_remote_code": False', '"use_safetensors": True'):
        assert line in text


def test_a_download_from_the_hub_names_the_commit() -> None:
    downloads = list(calls("hf_hub_download"))
    assert downloads
    for path, node in downloads:
        revisions = [ast.unparse(word.value) for word in node.keywords if word.arg == "revision"]
        assert revisions == ["model.sha"], path
    assert not list(calls("snapshot_download"))
