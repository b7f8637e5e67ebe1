"""Page tokens and filters of a listing of rows."""

import pytest

from services.synthetic import wire
from services.synthetic.domain import Dataset
from services.synthetic.views import DatasetQuery, RowFilter, RowPosition
from tailor.api.synthetic.v1 import synthetic_pb2
from tailor.errors import InvalidArgument, Reason
from tailor.storage.ref import Ref


def test_a_token_leads_to_the_same_dataset_and_only_with_the_same_filters() -> None:
    dataset = Dataset("d" * 64, "reports", "tiny", (), Ref("s3://datasets/x", "0" * 64, 1), 8, 1, 9, 0)
    wanted, position = RowFilter(task="answer"), RowPosition(1, 2, 3, 4)
    token = wire.from_position(dataset, wanted, position)
    query = DatasetQuery("reports")
    assert wire.to_position(token, query, wanted) == (DatasetQuery("reports", "d" * 64), position)
    assert wire.to_position("", query, wanted) == (query, RowPosition())
    refused = (
        (token, query, RowFilter()),
        (token, DatasetQuery("other"), wanted),
        (token, DatasetQuery("", "e" * 64), wanted),
        ("no-token", query, wanted),
        ("WzFd", query, wanted),
        (wire.from_position(dataset, wanted, RowPosition(row=-1)), query, wanted),
    )
    for case in refused:
        with pytest.raises(InvalidArgument) as raised:
            wire.to_position(*case)
        assert raised.value.reason == Reason.INVALID_PAGE_TOKEN


def test_a_long_text_and_a_request_that_names_nothing_are_refused() -> None:
    with pytest.raises(InvalidArgument):
        wire.to_filter(synthetic_pb2.ListRowsRequest(text="x" * 201))
    with pytest.raises(InvalidArgument):
        wire.to_query(synthetic_pb2.ListRowsRequest())
