"""Lists over PostgreSQL: search, order, filters and pages, with random rows."""

import base64
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import BigInteger, Column, DateTime, Engine, Identity, MetaData, String, Table

from tailor.api.common.v1.common_pb2 import ListQuery
from tailor.api.events.v1.models_pb2 import DATASET_KIND_PREFERENCE, DATASET_KIND_SFT, DatasetBuilt
from tailor.api.registry.v1.people_pb2 import ListPeopleRequest
from tailor.api.registry.v1.registry_pb2 import ListDatasetsRequest
from tailor.columns import list_names, list_values
from tailor.errors import InvalidArgument, Reason
from tailor.listing import Listing, ListPage, listed_columns
from tailor.rows import Rows
from tailor.sql import connect

pytestmark = pytest.mark.integration

METADATA = MetaData()
DATASETS = Table("datasets", METADATA, Column("position", BigInteger, Identity(), primary_key=True), *listed_columns())
PEOPLE = Table(
    "people",
    METADATA,
    Column("person_id", String(16), primary_key=True),
    Column("name", String(16)),
    Column("invitation_expire_time", DateTime(timezone=True)),
)
ORDERS = ["", *(name + way for name in list_names(ListDatasetsRequest).order_by.split() for way in ("", " desc"))]


@dataclass(frozen=True)
class Person:
    person_id: str
    name: str | None
    invitation_expire_time: datetime | None


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = connect(database_url)
    METADATA.create_all(engine)
    yield engine
    engine.dispose()


def add_dataset(engine: Engine, number: int, specialist: str = "") -> None:
    message = DatasetBuilt(
        digest=f"{number:064}",
        specialist=specialist or random.choice(("alpha", "Beta", "gamma")),
        kind=random.choice((DATASET_KIND_SFT, DATASET_KIND_PREFERENCE)),
        train_rows=random.choice((2, 10, 100)),
        documents=random.randrange(5),
        base=random.choice(("50%_base", "50x base", "back\\slash")),
    )
    message.create_time.FromSeconds(random.randrange(3))
    Rows(engine, DATASETS, str).insert(**list_values(ListDatasetsRequest, message, pipeline="sft"))


def list_datasets(
    engine: Engine, token: str = "", size: int = 7, **query: Any
) -> ListPage[tuple[int, dict[str, object]]]:
    request = ListDatasetsRequest(page_token=token, page_size=size, query=ListQuery(**query))
    rows = Rows(engine, DATASETS, str)
    listing = Listing(rows, request, rows.c.position, derived={})
    return listing.page(rows.select(), read=lambda row: (row.position, row.listed))


@pytest.mark.parametrize("order", ORDERS)
def test_every_order_walks_each_item_once_while_rows_are_added(engine: Engine, order: str) -> None:
    for number in range(60):
        add_dataset(engine, number)
    seen: list[tuple[int, dict[str, object]]] = []
    token, more = "", True
    while more:
        page = list_datasets(engine, token, order_by=order)
        seen += page.items
        token, more = page.next_token, bool(page.next_token)
        if len(seen) < 60:
            add_dataset(engine, 60 + len(seen))
    positions = [position for position, _ in seen]
    assert len(positions) == len({*positions}) >= 60 and {*positions} >= {*range(1, 61)}
    if order:
        name, _, direction = order.partition(" ")
        values = [listed[name] for _, listed in seen]
        assert values == sorted(values, reverse=bool(direction))  # type: ignore[type-var]


def test_a_search_finds_the_oldest_item_by_any_case_and_all_words(engine: Engine) -> None:
    add_dataset(engine, 7, specialist="oldest-reports")
    for number in range(1_100, 1_200):
        add_dataset(engine, number)
    assert [position for position, _ in list_datasets(engine, search="REPORTS 0007").items] == [1]
    assert list_datasets(engine, search="reports 0008").items == []


@pytest.mark.parametrize(("search", "base"), [("50%_", "50%_base"), ("k\\s", "back\\slash"), ("50x", "50x base")])
def test_wildcards_in_a_search_are_literal(engine: Engine, search: str, base: str) -> None:
    for number in range(40):
        add_dataset(engine, number)
    found = list_datasets(engine, search=search, size=200).items
    assert found and {listed["base"] for _, listed in found} == {base}


def test_filters_take_several_values_in_any_case_with_underscores_for_blanks(engine: Engine) -> None:
    for number in range(40):
        add_dataset(engine, number)
    found = list_datasets(engine, filters={"specialist": "ALPHA,beta", "kind": "SFT"}, size=200).items
    assert {(listed["specialist"], listed["kind"]) for _, listed in found} == {("alpha", "sft"), ("beta", "sft")}


def test_columns_without_a_value_are_the_least_and_no_token_has_a_private_one(engine: Engine) -> None:
    people = Rows(engine, PEOPLE, Person)
    soon = datetime.now(UTC)
    known = [Person("a", "zoe", None), Person("b", None, soon), Person("c", "Ann", soon + timedelta(microseconds=1))]
    for person in known:
        people.insert(person)

    def walk(order: str) -> list[str]:
        ids: list[str] = []
        token = ""
        while not ids or token:
            request = ListPeopleRequest(page_size=1, page_token=token, query=ListQuery(order_by=order))
            listing = Listing(people, request, people.c.person_id, private={"name"})
            page: ListPage[Person] = listing.page(people.select())
            ids += [person.person_id for person in page.items]
            token = page.next_token
            assert not any(name in base64.urlsafe_b64decode(token).lower() for name in (b"ann", b"zoe"))
        return ids

    assert (walk("name"), walk("name desc")) == (["b", "c", "a"], ["a", "c", "b"])
    assert walk("invitation_expire_time desc") == ["c", "b", "a"]


def test_an_item_that_is_not_kept_costs_no_place_on_a_page(engine: Engine) -> None:
    for number in range(50):
        add_dataset(engine, number)
    rows, request = Rows(engine, DATASETS, str), ListDatasetsRequest(page_size=3)
    listing = Listing(rows, request, rows.c.position)
    page = listing.page(rows.select(), read=lambda row: row.position, keep=lambda item: item % 16 == 0)
    assert (page.items, page.next_token) == ([16, 32, 48], "")


@pytest.mark.parametrize(
    ("query", "field", "allowed"),
    [
        ({"order_by": "secret"}, "query.order_by", "train_rows"),
        ({"order_by": "digest asc"}, "query.order_by", "digest"),
        ({"filters": {"digest": "x"}}, "query.filters", "kind, specialist"),
        ({"search": "a" * 201}, "query.search", "200"),
        ({"search": "a\0"}, "query.search", "printable"),
    ],
)
def test_an_unknown_name_is_refused_with_the_known_ones(
    engine: Engine, query: dict[str, Any], field: str, allowed: str
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        list_datasets(engine, **query)
    assert allowed in refused.value.field_violations[field]


@pytest.mark.parametrize("token", ["7", "!", "W10=", "WyJ4Il0=", "bm8=", "WzFd", "[" * 3000])
def test_a_made_up_token_is_refused(engine: Engine, token: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        list_datasets(engine, token)
    assert refused.value.reason == Reason.INVALID_PAGE_TOKEN


def test_a_token_belongs_to_its_query(engine: Engine) -> None:
    for number in range(9):
        add_dataset(engine, number)
    token = list_datasets(engine, order_by="digest").next_token
    for order, search in (("digest desc", ""), ("digest", "0")):
        with pytest.raises(InvalidArgument):
            list_datasets(engine, token, order_by=order, search=search)
