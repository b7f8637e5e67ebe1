"""Whether texts are alike."""

from services.synthetic.rows.likeness import copies, is_alike, shingles

SOURCE = "The register is kept by hand, and nobody checks it against the drawer in the evening."


def test_an_answer_that_repeats_its_source_is_a_copy_and_a_part_of_it_is_not() -> None:
    assert copies(SOURCE.lower().replace(",", ""), SOURCE)
    assert not copies("The register is kept by hand.", SOURCE)
    assert not copies(
        "Write down in the evening what is in the drawer, and let a colleague sign the page with you.", SOURCE
    )


def test_texts_are_alike_from_four_fifths_of_shared_shingles_on() -> None:
    first = shingles(SOURCE)
    assert is_alike(first, shingles(SOURCE.upper()))
    assert not is_alike(first, shingles(SOURCE.replace("nobody checks it", "a clerk checks it daily")))
    assert is_alike(shingles("Yes"), shingles("yes!"))
