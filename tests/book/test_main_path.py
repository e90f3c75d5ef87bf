"""The reader's main path, by keyboard: label pairs, fit them, write the loss, train with it.

On its way the walk uses the triangle of chapter 9 and the token view of chapter 10.
"""

import json
import shutil
import subprocess

import pytest

from tests.book.pages import ROOT
from tools.browser import find_chromium, find_firefox

WALK = ROOT / "tools" / "main_path" / "walk.mjs"
LIMIT = 120  # seconds
LOSS_ROW = 6  # of the triangle's table
HELP = "run tools/system.sh chromium and tools/system.sh firefox"


@pytest.mark.parametrize(
    ("name", "find", "scheme"),
    [("firefox", find_firefox, "file"), ("chrome", find_chromium, "http")],
)
def test_the_main_path(site, name, find, scheme):
    program, node = find(), shutil.which("node")
    assert program, HELP
    assert node, HELP
    assert (WALK.parent / "node_modules").is_dir(), HELP
    command = [node, str(WALK), name, program, site[scheme]]
    result = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    assert result.returncode == 0, result.stderr
    seen = json.loads(result.stdout)

    assert seen["outside"] == []
    assert seen["errors"] == []
    fitted = seen["fitted"]
    assert fitted["said"].startswith("From 12 of your clicks: right ")
    scores = {kind: score for kind, (_, _, score) in fitted["kinds"].items() if score is not None}
    assert min(scores, key=scores.get) == "no answer"  # which the walk never chooses
    chosen, rejected, _ = zip(*(fitted["kinds"][kind] for kind in scores), strict=True)
    assert 0 < sum(chosen) == sum(rejected) <= 12
    written, trained = seen["written"], seen["trained"]
    assert written["reward"][1] > written["reward"][0] + 0.3
    assert all(before != now for before, now in written["answers"])
    assert "mine, from chapter 9" in trained["legend"]
    assert "my clicks of chapter 1 (12 of yours)" in trained["legend"]
    assert trained["pairs"] == 12
    assert trained["reward"][1] > trained["reward"][0]
    assert any(before != now for before, now in trained["answers"])
    # Of the triangle's table the last column, DPO's policy: the key moves the start up, a step
    # lowers the loss.
    first, moved, stepped = (
        [float(cell.replace("−", "-")) for cell in cells[2::3]] for cells in seen["drawn"]
    )
    assert moved[0] == pytest.approx(first[0] + 0.02, abs=0.006)
    assert stepped[LOSS_ROW] < moved[LOSS_ROW]
    assert seen["scored"] == ["Lima", "is", "the", "capital", "of", "Peru", ".", "<eos>", "log π"]
