"""Checkpoints on their way while training goes on."""

import threading

import pytest

from services.training.worker.checkpoints import Uploads
from tailor.errors import Reason, Unavailable


def test_training_goes_on_while_a_checkpoint_is_on_its_way_and_waits_for_it_before_the_next() -> None:
    uploads, let_go, stored = Uploads(), threading.Event(), []

    def upload() -> None:
        assert let_go.wait(5)
        stored.append("first")

    uploads.begin(upload)
    assert not stored
    let_go.set()
    uploads.begin(lambda: stored.append("second"))
    uploads.finish()
    assert stored == ["first", "second"]


def test_an_upload_that_failed_fails_whoever_goes_on_from_it() -> None:
    def fail() -> None:
        raise Unavailable(Reason("STORE_UNAVAILABLE"), "The object store is away.")

    for goes_on in (Uploads.finish, lambda uploads: uploads.begin(lambda: None)):
        uploads = Uploads()
        uploads.begin(fail)
        with pytest.raises(Unavailable):
            goes_on(uploads)
        uploads.finish()
