"""Background uploads of checkpoints."""

import threading

import pytest

from services.training.worker.checkpoints import Uploads
from tailor.errors import Reason, Unavailable


def test_upload_runs_in_the_background_and_the_next_one_waits_for_it() -> None:
    uploads, let_go, stored = Uploads(), threading.Event(), []

    def upload() -> None:
        assert let_go.wait(60)
        stored.append("first")

    uploads.begin(upload)
    assert not stored
    let_go.set()
    uploads.begin(lambda: stored.append("second"))
    uploads.finish()
    assert stored == ["first", "second"]


def test_failed_upload_raises_in_the_next_call() -> None:
    def fail() -> None:
        raise Unavailable(Reason("STORE_UNAVAILABLE"), "The object store is away.")

    for goes_on in (Uploads.finish, lambda uploads: uploads.begin(lambda: None)):
        uploads = Uploads()
        uploads.begin(fail)
        with pytest.raises(Unavailable):
            goes_on(uploads)
        uploads.finish()
