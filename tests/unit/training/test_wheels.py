"""A base from a wheel whose GGUF file comes in several packages, and the chat template of a base that has none."""

import hashlib
import json
from pathlib import Path

import pytest

from services.training.bases import sources, wheels
from services.training.bases.chat_probe import TEMPLATE, add_template
from tailor.errors import InvalidArgument

PACKAGE = "two-part-gguf"


def install(folder: Path, *parts: bytes) -> None:
    """Packages as pip would install them."""
    name = PACKAGE.replace("-", "_")
    for package in (name, *(f"{name}_part{number + 1}" for number in range(len(parts)))):
        (folder / package / "data").mkdir(parents=True)
        (folder / package / "__init__.py").write_text("raise RuntimeError('imported')", encoding="utf-8")
    for number, content in enumerate(parts):
        (folder / f"{name}_part{number + 1}" / "data" / f"model.gguf.part0{number}").write_bytes(content)


def test_parts_are_joined_without_importing_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "site", b"GGUF first", b", second")
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setitem(wheels.WHEELS, PACKAGE, hashlib.sha256(b"GGUF first, second").hexdigest())
    assert wheels.find_gguf(PACKAGE, tmp_path).read_bytes() == b"GGUF first, second"


def test_parts_of_another_file_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "site", b"GGUF first")
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setitem(wheels.WHEELS, PACKAGE, hashlib.sha256(b"GGUF first, second").hexdigest())
    with pytest.raises(InvalidArgument, match="The 1 installed parts of two-part-gguf are not its GGUF file"):
        wheels.find_gguf(PACKAGE, tmp_path)


def test_a_package_that_is_not_installed_is_named_with_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(wheels.WHEELS, PACKAGE, "0" * 64)
    target = tmp_path / "target"
    target.mkdir()
    with pytest.raises(InvalidArgument, match="pip install two-part-gguf"):
        sources.fetch(f"wheel:{PACKAGE}", target, 2**30)
    with pytest.raises(InvalidArgument, match="The wheel is not known"):
        sources.fetch("wheel:another", target, 2**30)


@pytest.mark.parametrize(
    ("model_type", "own", "family"),
    [
        ("gemma3_text", None, "gemma3"),
        ("gemma3_text", "{{ messages }}", ""),
        ("llama", None, ""),
        ("../gemma3", None, ""),
    ],
)
def test_a_base_without_a_template_gets_that_of_its_family(
    tmp_path: Path, model_type: str, own: str | None, family: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}), encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": own}), encoding="utf-8")
    assert add_template(tmp_path) == family
    assert (tmp_path / TEMPLATE).exists() == bool(family)
