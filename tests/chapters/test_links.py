"""A link that names a chapter or an appendix leads there."""

import math
import re
from collections import Counter
from pathlib import Path

import dpo_sections
import pytest

from tools import claims

ROOT = Path(__file__).resolve().parents[2]
PAGES = [name for name in claims.book_files() if name.endswith((".md", ".ipynb"))]
ROLE = re.compile(r"\{(?:chapter|section|appendix)\}`([^`<]*?)\s*<(\w+)[^>`]*>`")
REF = re.compile(r"\{ref\}`([^`<]*?)\s*<((?:ch|app)-[\w-]+)>`")
NAMED = re.compile(r"(?:\d+|\b[A-L])$")  # what a link's words end with: a chapter or an appendix

TEXTS = {
    name: "\n\n".join(place.text for place in claims.read_places(ROOT / name)) for name in PAGES
}
LABELS = {
    label: Path(name).stem.split("_")[0].lstrip("0").upper()
    for name, text in TEXTS.items()
    for label in re.findall(r"^\(((?:ch|app)-[\w-]+)\)=", text, re.MULTILINE)
}


def wrong_links(text):
    """The links whose words name one page and whose target is another; how many were looked at."""
    links = [(m[0], m[1], m[2]) for m in ROLE.finditer(text)]
    links += [(m[0], m[1], LABELS[m[2]]) for m in REF.finditer(text)]
    named = [(whole, NAMED.search(words), place) for whole, words, place in links]
    return [whole for whole, name, place in named if name and name[0] != place], len(named)


@pytest.mark.parametrize("name", PAGES)
def test_words_and_targets_of_links_agree(name):
    assert wrong_links(TEXTS[name])[0] == []


def test_all_links_of_the_book_are_looked_at():
    assert sum(wrong_links(text)[1] for text in TEXTS.values()) > 500
    assert {"1", "10", "A", "G"} <= {*LABELS.values()}
    wrong = "{chapter}`ch. 9 <7>`", "{section}`C <D#Choosing β>`", "{ref}`chapter 2 <ch-nll>`"
    right = "{chapter}`ch. 9 <9>`, {ref}`the loss <ch-nll>`, {ref}`Chapter 3 <ch-nll>`"
    assert wrong_links(f"{' '.join(wrong)} {right}") == ([*wrong], 6)


QUESTION = re.compile(
    r"^(\S[^\n]*)\n: ((?:(?!\n\n).)*?\{section\}`(?:[^`<]*<)?(\w+)#([^`>]+)>?`)",
    re.MULTILINE | re.DOTALL,
)
IN_OTHER_WORDS = {  # questions whose section has another name for what is asked
    "Accuracy is perfect and the answers are bad": "Three runs, too long on purpose",
    "DPO loss stuck at 0.693": "9. Reference not frozen",
    "Does DPO overfit?": "When the minimum runs away",
    "How do I compute the log-probability of an answer?": "Six operations",
    "How do I find the bug?": "A field guide",
    "I have thumbs up and down, not pairs": "Which one?",
    "Loss goes down but the samples do not change": "1. Wrong slice",
    "Where does the DPO loss come from?": "Seven lines",
    "Why do I need a reference model?": "The coin flips' answer",
}


def stems(text):
    """The words of a text and how often, without their endings."""
    words = re.findall(r"[a-z]{2,}|β", text.lower().replace("\\beta", "β"))
    return Counter(re.sub(r"(?<=...)(ings?|ies|ed|es|s)$", "", word) for word in words)


def sections_of(place):
    page, _ = dpo_sections.page_of(place)
    (name,) = [name for name in PAGES if name.rpartition(".")[0] == page]
    _, *parts = re.split(r"^#{1,6} (.*)$", TEXTS[name], flags=re.MULTILINE)
    headings = [heading.replace("$", "") for heading in parts[::2]]
    return dict(zip(headings, parts[1::2], strict=True))


def nearest(question, place):
    """The sections of a page, by the rare words that they share with a question."""
    sections = sections_of(place)
    said = {heading: stems(text) + stems(heading) for heading, text in sections.items()}
    spread = Counter(word for words in said.values() for word in words)

    def near(heading):
        words, named = said[heading], stems(heading)
        long = 0.4 + words.total() / 350
        return sum(
            math.log(1 + len(said) / spread[word])
            * (2.5 * words[word] / (words[word] + long) + 2 * (word in named))
            for word in stems(question)
            if word in words
        )

    return sorted(sections, key=near, reverse=True)


def test_a_question_leads_to_a_section_that_speaks_of_it():
    found = QUESTION.findall(TEXTS["book/questions.md"])
    assert len(found) > 50
    for question, answer, place, heading in found:
        if question in IN_OTHER_WORDS:
            assert heading == IN_OTHER_WORDS[question]
            continue
        text = question + answer.partition("{section}")[0]
        assert heading in nearest(text, place)[:3], question
