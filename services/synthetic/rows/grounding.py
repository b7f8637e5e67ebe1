"""Whether a prompt supports an answer: the figures, dates, amounts, codes, citations and names of the answer stand in the prompt."""

from services.synthetic.rows.facts import find_runs
from services.synthetic.rows.sentences import find_sentences
from services.synthetic.rows.structure import normalize


def unsupported(answer: str, prompt: str, language: str = "") -> list[str]:
    """Values and names of the answer that the prompt does not have word for word, apart from white space; in order, each once."""
    known = normalize(prompt)
    lines = [normalize(line) for line in answer.split("\n")]
    sentences = [line[start:end] for line in lines for start, end in find_sentences(line, 0, len(line))]
    runs = (run for text in sentences for run in find_runs(text, language))
    return [text for text in dict.fromkeys(run.text for run in runs) if text not in known]
