"""What is guessed of the next tokens, and when nothing is."""

from types import SimpleNamespace

import numpy as np

from services.training.methods.engine_guesses import LONGEST_GUESS, Guesses

PLACES = 16


def guesses(*prompts: list[int]) -> Guesses:
    made = Guesses(SimpleNamespace(scheduler_config=SimpleNamespace(max_num_seqs=PLACES)))
    made.begin(prompts)
    return made


def propose(made: Guesses, *rows: list[int], drawn: int = 1) -> list[list[int]]:
    """Propose after rows whose last tokens were drawn. An empty row still reads its prompt."""
    tokens = np.zeros((len(rows), 64), dtype=np.int32)
    for number, row in enumerate(rows):
        tokens[number, : len(row)] = row
    return made.propose([row[-drawn:] if row else [] for row in rows], [len(row) for row in rows], tokens)


def test_what_followed_in_the_prompt_is_guessed() -> None:
    assert propose(guesses([1, 2, 3, 4, 5]), [9, 2, 3]) == [[4, 5]]


def test_more_tokens_decide_before_fewer_and_the_last_place_before_earlier_ones() -> None:
    made = guesses([7, 2, 3, 4, 0, 8, 2, 3, 5])
    assert propose(made, [7, 2, 3]) == [[4, 0, 8, 2, 3, 5]]
    assert propose(made, [6, 2, 3]) == [[5]]


def test_what_another_answer_drew_is_guessed() -> None:
    made = guesses([1])
    assert propose(made, [1, 5, 6, 7], [1, 4, 5, 6], drawn=3) == [[], [7]]


def test_all_tokens_of_a_step_are_learned() -> None:
    made = guesses([1])
    propose(made, [1, 5, 6])
    propose(made, [1, 5, 6, 7, 8], drawn=2)
    assert propose(made, [2, 5, 6]) == [[7, 8]]


def test_guess_has_a_greatest_length() -> None:
    prompt = list(range(20))
    assert propose(guesses(prompt), [0, 1]) == [prompt[2 : 2 + LONGEST_GUESS]]


def test_guesses_take_the_places_of_answers_that_have_ended() -> None:
    prompt = list(range(20))
    for rows, longest in ((4, 3), (5, 2), (8, 1), (9, 0), (16, 0)):
        assert propose(guesses(prompt), *[[0, 1]] * rows) == [prompt[2 : 2 + longest]] * rows


def test_rows_that_read_their_prompt_get_no_guess_but_take_a_place() -> None:
    prompt = list(range(20))
    assert propose(guesses(prompt), [0, 1], [], [], []) == [[2, 3, 4], [], [], []]


def test_guesses_cease_while_most_rows_drew_something_else_until_the_next_step() -> None:
    made = guesses([1, 2, 3, 4])
    made.count(right=1, wrong=1)
    assert propose(made, [1, 2]) == [[3, 4]]
    made.count(right=0, wrong=1)
    assert propose(made, [1, 2]) == [[]]
    made.begin([[1, 2, 3]])
    assert propose(made, [1, 2]) == [[3]]
    assert propose(made, [2, 3]) == [[]]
