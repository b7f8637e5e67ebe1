"""The programs of the test cluster: their folder, and a message about missing ones."""

from pathlib import Path

import pytest

from tests.cluster.programs import NEEDED, folder
from tests.installed import Missing, check_installed


def test_what_is_missing_is_named_with_its_remedy(tmp_path: Path) -> None:
    with pytest.raises(Missing) as caught:
        check_installed(NEEDED, "a cluster", path=str(tmp_path))
    assert all(remedy in str(caught.value) for remedy in NEEDED.values())


def test_nothing_is_missing_where_all_programs_are_found(tmp_path: Path) -> None:
    for name in NEEDED:
        (tmp_path / name).touch(mode=0o755)
    check_installed(NEEDED, "a cluster", path=str(tmp_path))


def test_a_setting_names_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TAILOR_CLUSTER_FOLDER", str(tmp_path))
    assert folder() == tmp_path
