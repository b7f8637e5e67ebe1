"""Which rows become examples in a prompt."""

from tailor.api.synthetic.v1 import synthetic_pb2
from tailor.cli.connections import Connections
from tailor.cli.house_examples import choose_examples, find_words, list_train_rows, similarity
from tests.fakes.serving import DATASET
from tests.unit.cli.conftest import Services


def make_row(row_id: str, prompt: str) -> synthetic_pb2.Row:
    messages = [
        synthetic_pb2.RowMessage(role=role, content=text) for role, text in (("user", prompt), ("assistant", "x"))
    ]
    return synthetic_pb2.Row(row_id=row_id, messages=messages)


def test_the_most_similar_prompts_come_first_and_equal_ones_by_id() -> None:
    rows = [
        make_row("d", "Write the memo about tram depots."),
        make_row("c", "Summarise a contract."),
        make_row("b", "Write the memo about boats."),
        make_row("a", "Write the memo about boats."),
    ]

    chosen = choose_examples(rows, ["Write the memo about boats in winter.", "A contract"], 2)

    assert [[row.row_id for row in found] for found in chosen] == [["a", "b"], ["c", "a"]]


def test_without_a_count_there_are_no_examples() -> None:
    assert choose_examples([make_row("a", "Write.")], ["Write."], 0) == [[]]


def test_similarity_is_the_cosine_of_the_sets_of_longer_words() -> None:
    assert similarity(find_words("Boats in the harbour"), find_words("the boats of a harbour")) == 1.0
    assert similarity(find_words("boats harbour"), find_words("boats winter")) == 0.5
    assert similarity(find_words("a of"), find_words("boats")) == 0.0


def test_reads_all_pages_of_the_train_rows(connections: Connections, services: Services) -> None:
    rows = list(list_train_rows(connections.synthetic, DATASET))

    assert [row.row_id for row in rows] == ["row_0", "row_1", "row_2"]
    assert {request.split for request in services.synthetic.listed} == {synthetic_pb2.SPLIT_TRAIN}
