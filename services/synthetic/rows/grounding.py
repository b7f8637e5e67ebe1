"""Whether a prompt supports an answer: the figures, dates, amounts, codes, citations and names of the answer stand in the prompt."""

from services.synthetic.rows.blocks import read_blocks, read_text
from services.synthetic.rows.structure import normalize


def unsupported(answer: str, prompt: str, language: str = "") -> list[str]:
    """Values and names of the answer that the prompt does not have word for word, apart from white space; in order, each once."""
    reading = read_text(answer, language)
    known = normalize(prompt)
    runs = (run.text for piece in read_blocks(reading) for run in piece.runs)
    return [text for text in dict.fromkeys(runs) if text not in known]
