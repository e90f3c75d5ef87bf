"""A link that names a chapter or an appendix leads there."""

import re
from pathlib import Path

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
