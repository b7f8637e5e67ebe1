"""Decoding tokens as they are generated."""

from services.inference.engines.transformers_engine import Detokenizer


def words(*vocabulary: bytes, stop: tuple[str, ...] = ()) -> Detokenizer:
    return Detokenizer(lambda tokens: b"".join(vocabulary[t] for t in tokens).decode(errors="replace"), stop)


def test_releases_whole_characters_only() -> None:
    writer = words(b"caf", b"\xc3", b"\xa9")
    assert [writer.add(token).text for token in (0, 1, 2)] == ["caf", "", "é"]


def test_ends_before_a_stop_text_that_spans_tokens() -> None:
    writer = words(b"Yes.", b" EN", b"D. More", stop=("END",))
    assert writer.add(0) == ("Yes.", False)
    assert writer.add(1) == (" ", False)
    assert writer.add(2) == ("", True)


def test_releases_text_that_only_looked_like_a_stop_text() -> None:
    writer = words(b"an E", b"go", stop=("END",))
    assert writer.add(0).text == "an "
    assert writer.add(1).text == "Ego"
    writer = words(b"an E", stop=("END",))
    writer.add(0)
    assert writer.rest() == "E"
