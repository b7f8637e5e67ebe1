"""A thought is split off the answer in the same way, however the text arrives."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tailor.thoughts import SplitText, ThoughtMarkers, ThoughtSplitter

MARKERS = (
    ThoughtMarkers("<think>", "</think>"),
    ThoughtMarkers("", "</think>"),
    ThoughtMarkers("<|c|>think<|m|>", "<|e|><|c|>say<|m|>", "<|c|>say<|m|>"),
)
# Texts out of the markers' own parts, so that they begin and break off everywhere.
TEXTS = st.lists(
    st.sampled_from(["<", "think", "</think>", "<think>", "<|c|>", "say", "<|m|>", "<|e|>", " ", "\n", "a", "é"]),
    max_size=12,
).map("".join)


def split(markers: ThoughtMarkers, pieces: list[str]) -> SplitText:
    splitter = ThoughtSplitter(markers)
    parts = [splitter.add(piece, is_last=False) for piece in pieces] + [splitter.add("", is_last=True)]
    answered = [number for number, part in enumerate(parts) if part.answer]
    assert not any(part.thought for part in parts[answered[0] + 1 :]) if answered else True
    return SplitText("".join(part.thought for part in parts), "".join(part.answer for part in parts))


@given(st.sampled_from(MARKERS), TEXTS, st.data())
def test_cuts_change_nothing(markers: ThoughtMarkers, text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    edges = [0, *cuts, len(text)]
    pieces = [text[start:end] for start, end in pairwise(edges)]
    assert split(markers, pieces) == split(markers, [text])


@given(st.sampled_from(MARKERS), st.text("ab <é\n"), st.text("ab <é\n"))
def test_a_thought_and_its_answer_come_back_without_the_white_space_around_them(
    markers: ThoughtMarkers, thought: str, answer: str
) -> None:
    written = f"{markers.start}{thought}{markers.end}{answer}"
    assert split(markers, [written]) == (thought.strip(), answer.lstrip())


@given(st.sampled_from(MARKERS), st.text("ab é\n"))
def test_a_thought_that_never_ends_leaves_no_answer(markers: ThoughtMarkers, thought: str) -> None:
    assert split(markers, [*f"{markers.start}{thought}"]) == (thought.strip(), "")


def test_an_answer_without_a_thought_is_whole() -> None:
    assert split(MARKERS[0], ["<th", "e answer>"]) == ("", "<the answer>")
    assert split(MARKERS[2], ["<|c|>", "say<|m|>Yes."]) == ("", "Yes.")


def test_control_tokens_belong_to_neither_text() -> None:
    markers = ThoughtMarkers("<think>", "</think>", control=("<|pad|>",))
    assert split(markers, ["<think>", "It<|pad|> was.", "</think>", "<|pad|>Yes<|pad|>."]) == ("It was.", "Yes.")
