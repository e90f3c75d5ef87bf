"""The bets as they stand in the chapters: one or two in each, and four statements scored later."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from dpo_lib.widgets.bet import STATEMENTS

CHAPTERS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))
PLACEHOLDER = re.compile(
    r'data-dpo-widget="bet">.*?<script type="application/json">(.*?)</script>', re.S
)
LONGEST = 150  # characters of the sentence for which there is room


def bets_of(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    shown = (
        "".join(output.get("data", {}).get("text/html", ""))
        for cell in cells
        for output in cell.get("outputs", [])
    )
    return [json.loads(text) for html in shown for text in PLACEHOLDER.findall(html)]


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_each_chapter_asks_for_a_bet_or_two(path):
    own = [bet for bet in bets_of(path) if bet["data"]["name"] != STATEMENTS["name"]]
    assert 1 <= len(own) <= 2
    for bet in own:
        assert bet["data"]["truth"] is not None
        assert len(bet["data"]["said"]) + 60 <= LONGEST


def test_names_are_used_once_and_the_four_statements_are_scored_in_chapter_6():
    named = Counter(bet["data"]["name"] for path in CHAPTERS for bet in bets_of(path))
    assert named.pop(STATEMENTS["name"]) == 2
    assert set(named.values()) == {1}
    asked, scored = (
        [
            bet["data"]
            for bet in bets_of(CHAPTERS[chapter - 1])
            if len(bet["data"].get("rows", "")) == 4
        ]
        for chapter in (4, 6)
    )
    assert asked[0]["truth"] is None
    assert scored[0]["truth"] == ["it depends", "false", "false", "false"]
    assert len(scored[0]["why"]) == 4
    for key in ("name", "rows", "options"):
        assert asked[0][key] == scored[0][key]
