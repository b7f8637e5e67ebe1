from bench.strangers_rules import AnswerMarks, digest_of, draw, has_prose

ANSWER = "Ask Erika Kettler (erika@kettler.example) before you remove the old package."


def test_a_mark_holds_for_another_installations_surrogates() -> None:
    other = ANSWER.replace("Erika Kettler", "Maria Anna Stein").replace("erika@kettler", "m.stein@hofer")
    assert digest_of(other) == digest_of(ANSWER)
    assert AnswerMarks({digest_of(ANSWER): "right"}).is_right(other)


def test_a_mark_does_not_hold_for_other_words() -> None:
    assert digest_of(ANSWER.replace("remove", "install")) != digest_of(ANSWER)


def test_the_same_answers_are_drawn_in_any_order_and_each_once() -> None:
    answers = [ANSWER, "The build fails if a file is missing.", ANSWER.replace("Erika", "Maria")]
    assert [digest_of(answer) for answer in draw(answers, 5)] == [
        digest_of(answer) for answer in draw(answers[::-1], 5)
    ]
    assert len(draw(answers, 5)) == 2
    assert len(draw(answers, 1)) == 1


def test_contents_and_bars_of_links_are_no_prose() -> None:
    assert has_prose(ANSWER)
    assert not has_prose("1.2 Installing ........ 14\n1.3 Removing ........ 15")
    assert not has_prose("Prev | Up | Next")


def test_a_number_between_words_does_not_end_a_clause() -> None:
    assert has_prose("*Buster* (Debian 10) war Andys Spielzeughund.")
    assert not has_prose("zcat README.gz | pager zcat README.gz > foo")
