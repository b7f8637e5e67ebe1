"""The digest of an installed model."""

from pathlib import Path

import pytest

from services.anonymization.recognise.detectors.model_digest import check_model, digest_of
from tailor.errors import FailedPrecondition


def test_every_name_and_content_counts_and_compiled_files_do_not(tmp_path: Path) -> None:
    (tmp_path / "ner").mkdir()
    (tmp_path / "ner" / "model").write_bytes(b"weights")
    before = digest_of(tmp_path)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "a.pyc").write_bytes(b"x")
    assert digest_of(tmp_path) == before
    (tmp_path / "ner" / "model").write_bytes(b"weights2")
    assert digest_of(tmp_path) != before


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    del tmp_path
    with pytest.raises(FailedPrecondition, match=r"english.*no_such_model"):
        check_model("english", "no_such_model", "")


def test_a_model_of_other_files_is_refused() -> None:
    check_model("any", "email", "")
    with pytest.raises(FailedPrecondition, match="not the one"):
        check_model("any", "email", "0" * 64)
