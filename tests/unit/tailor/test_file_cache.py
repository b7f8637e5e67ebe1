"""A cache of files that pods share: fetched once, verified at each use, bounded, and never in the way."""

import hashlib
import multiprocessing
import os
import resource
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tailor.errors import NotFound
from tailor.settings import ServiceSettings
from tailor.storage.file_cache import FileCache
from tailor.storage.ref import Ref
from tailor.storage.s3 import S3Store

KIB = 1024


def ref_of(data: bytes) -> Ref:
    digest = hashlib.sha256(data).hexdigest()
    return Ref(f"s3://models/bases/files/{digest}", digest, len(data))


class Source:
    """Objects by digest, and how often each was downloaded."""

    def __init__(self, *objects: bytes, seconds: float = 0.0) -> None:
        self.objects = {ref_of(data).sha256: data for data in objects}
        self.seconds = seconds
        self.downloads: list[str] = []

    def download(self, ref: Ref, path: Path) -> None:
        self.downloads.append(ref.sha256)
        time.sleep(self.seconds)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.objects[ref.sha256])


def cached(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix not in (".lock", ".part")}


def test_ten_restarts_download_once(tmp_path: Path) -> None:
    source = Source(b"weights")
    for number in range(10):
        FileCache(tmp_path / "cache", KIB).fetch(ref_of(b"weights"), tmp_path / f"{number}" / "w", source.download)
        assert (tmp_path / f"{number}" / "w").read_bytes() == b"weights"
    assert len(source.downloads) == 1


@pytest.mark.parametrize("change", [b"tampere", b"short", b"longer than the object"])
def test_a_file_that_somebody_changed_is_not_used(tmp_path: Path, change: bytes) -> None:
    source, cache, ref = Source(b"weights"), FileCache(tmp_path / "cache", KIB), ref_of(b"weights")
    cache.fetch(ref, tmp_path / "a", source.download)
    (tmp_path / "cache" / ref.sha256).write_bytes(change)
    cache.fetch(ref, tmp_path / "b", source.download)
    cache.fetch(ref, tmp_path / "c", source.download)
    assert (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes() == b"weights"
    assert len(source.downloads) == 2


@pytest.mark.parametrize("put", [lambda path: path.symlink_to("/etc/hostname"), os.mkfifo, os.mkdir])
def test_what_is_no_file_is_not_read(tmp_path: Path, put: Callable[[Path], object]) -> None:
    source, ref = Source(b"weights"), ref_of(b"weights")
    (tmp_path / "cache").mkdir()
    put(tmp_path / "cache" / ref.sha256)
    FileCache(tmp_path / "cache", KIB).fetch(ref, tmp_path / "a", source.download)
    assert (tmp_path / "a").read_bytes() == b"weights"


def test_a_digest_that_is_a_path_names_no_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"weights")
    cache, asked = FileCache(tmp_path / "cache", KIB), []
    ref = Ref("s3://models/bases/files/x", "../secret", 7)
    cache.fetch(ref, tmp_path / "a", lambda ref, path: asked.append((ref, path)))
    assert asked == [(ref, tmp_path / "a")] and not (tmp_path / "cache").exists()


def test_the_copy_is_not_the_cached_file_which_another_pod_may_change(tmp_path: Path) -> None:
    source, cache, ref = Source(b"weights"), FileCache(tmp_path / "cache", KIB), ref_of(b"weights")
    for name in ("a", "b"):
        cache.fetch(ref, tmp_path / name, source.download)
    with (tmp_path / "cache" / ref.sha256).open("r+b") as file:
        file.write(b"tampere")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == b"weights"


def test_the_least_recently_used_files_make_room(tmp_path: Path) -> None:
    first, second, third = (letter * 400 for letter in (b"a", b"b", b"c"))
    source, cache = Source(first, second, third), FileCache(tmp_path / "cache", KIB)
    for number, data in enumerate((first, second, first, third)):
        cache.fetch(ref_of(data), tmp_path / f"{number}", source.download)
        for path in (tmp_path / "cache").glob("*"):
            os.utime(path, (path.stat().st_atime, path.stat().st_mtime - 10))
    assert cached(tmp_path / "cache") == {ref_of(first).sha256, ref_of(third).sha256}


def test_a_file_larger_than_the_cache_is_downloaded_each_time(tmp_path: Path) -> None:
    source, cache = Source(b"x" * 2000), FileCache(tmp_path / "cache", KIB)
    for name in ("a", "b"):
        cache.fetch(ref_of(b"x" * 2000), tmp_path / name, source.download)
    assert len(source.downloads) == 2 and cached(tmp_path / "cache") == set()


def test_files_that_a_killed_pod_left_are_removed(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / ".half.part").write_bytes(b"x" * 1000)
    source = Source(b"weights")
    FileCache(tmp_path / "cache", KIB).fetch(ref_of(b"weights"), tmp_path / "a", source.download)
    assert not list((tmp_path / "cache").glob("*.part"))


def test_a_folder_that_cannot_be_used_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    source = Source(b"weights")
    FileCache(tmp_path / "file" / "cache", KIB).fetch(ref_of(b"weights"), tmp_path / "a", source.download)
    assert (tmp_path / "a").read_bytes() == b"weights"


def test_a_full_disk_of_a_pod_costs_the_others_nothing(tmp_path: Path) -> None:
    ref = ref_of(b"weights" * 2000)
    source, cache = Source(b"weights" * 2000), FileCache(tmp_path / "cache", 100 * KIB)
    cache.fetch(ref, tmp_path / "a", source.download)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (KIB, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            cache.fetch(ref, tmp_path / "b", source.download)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert cached(tmp_path / "cache") == {ref.sha256}
    assert not list(tmp_path.glob(".*.part"))


def test_a_failed_download_is_raised_and_caches_nothing(tmp_path: Path) -> None:
    def fail(_ref: Ref, _path: Path) -> None:
        raise NotFound("UNKNOWN_OBJECT", "The object does not exist.")  # type: ignore[arg-type]

    with pytest.raises(NotFound):
        FileCache(tmp_path / "cache", KIB).fetch(ref_of(b"weights"), tmp_path / "a", fail)
    assert cached(tmp_path / "cache") == set()


def fetch_in_a_pod(folder: Path, name: str, log: Path) -> None:
    """Fetch as a pod does, with a note of each download in a file."""
    source = Source(b"weights", seconds=0.5)

    def download(ref: Ref, path: Path) -> None:
        with log.open("a", encoding="ascii") as file:
            file.write("x")
        source.download(ref, path)

    FileCache(folder / "cache", KIB).fetch(ref_of(b"weights"), folder / name, download)


def test_pods_that_start_together_download_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    pods = [context.Process(target=fetch_in_a_pod, args=(tmp_path, name, tmp_path / "log")) for name in "abcd"]
    for pod in pods:
        pod.start()
    for pod in pods:
        pod.join(60)
    assert [pod.exitcode for pod in pods] == [0, 0, 0, 0]
    assert (tmp_path / "log").read_text(encoding="ascii") == "x"
    assert all((tmp_path / name).read_bytes() == b"weights" for name in "abcd")


def test_a_pod_does_not_wait_for_ever_for_another_ones_download(tmp_path: Path) -> None:
    slow, quick, ref = Source(b"weights"), Source(b"weights"), ref_of(b"weights")
    begun, go_on = threading.Event(), threading.Event()

    def download(ref: Ref, path: Path) -> None:
        begun.set()
        assert go_on.wait(60)
        slow.download(ref, path)

    first = FileCache(tmp_path / "cache", KIB)
    thread = threading.Thread(target=first.fetch, args=(ref, tmp_path / "a", download))
    thread.start()
    assert begun.wait(60)
    FileCache(tmp_path / "cache", KIB, wait_seconds=0.1).fetch(ref, tmp_path / "b", quick.download)
    assert (tmp_path / "b").read_bytes() == b"weights" and len(quick.downloads) == 1
    go_on.set()
    thread.join()


def test_only_files_of_bases_are_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"weights"
    digest = ref_of(data).sha256
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / digest).write_bytes(data)
    settings = ServiceSettings(s3_endpoint="127.0.0.1:1", base_cache_dir=tmp_path / "cache")
    store = S3Store.from_settings(settings)
    store.get_file(ref_of(data), tmp_path / "base")
    assert (tmp_path / "base").read_bytes() == data
    for key in (f"adapters/files/{digest}", f"bases/tiny/{digest}"):
        with pytest.raises(Exception, match="does not answer"):
            store.get_file(Ref(f"s3://models/{key}", digest, len(data)), tmp_path / "other")
