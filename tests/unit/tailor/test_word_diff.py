"""The words in which two texts differ."""

import pytest

from tailor.word_diff import MAX_WORDS, DiffPiece, Side, diff_words


def test_words_are_compared_and_not_letters() -> None:
    assert list(diff_words("The old answer is short.", "The new answer is short.")) == [
        DiffPiece(Side.BOTH, "The "),
        DiffPiece(Side.FIRST, "old "),
        DiffPiece(Side.SECOND, "new "),
        DiffPiece(Side.BOTH, "answer is short."),
    ]


@pytest.mark.parametrize(("first", "second"), [("", ""), ("a b", ""), ("", "a b"), ("  a\n\nb ", "b  a"), ("a", "a ")])
def test_the_pieces_of_each_side_make_up_its_words(first: str, second: str) -> None:
    pieces = list(diff_words(first, second))
    theirs = "".join(piece.text for piece in pieces if piece.side is not Side.FIRST)
    assert theirs == second
    ours = " ".join(piece.text for piece in pieces if piece.side is not Side.SECOND)
    assert ours.split() == first.split()


def test_a_long_text_is_cut_for_the_comparison_and_shown_whole() -> None:
    text = "word " * (MAX_WORDS + 10)
    pieces = list(diff_words(text, "word"))
    assert sum(piece.text.count("word") for piece in pieces if piece.side is not Side.SECOND) == MAX_WORDS + 10
