"""Results of experiments: rounded, a row a line, and never half a file."""

import ast
import json
from pathlib import Path

import pytest

from dpo_lib.experiments.store import RESULTS, store

FOLDER = Path(__file__).resolve().parents[2] / "dpo_lib" / "experiments"
SCRIPTS = sorted(p for p in FOLDER.glob("*.py") if "__main__" in p.read_text("utf-8"))


def test_rows_stand_on_lines_of_their_own_and_are_rounded(tmp_path):
    path = store(
        "a", {"seeds": range(2)}, [{"x": 1 / 3, "y": [2.0, {"z": 1e-9}]}, {"é": 1}], tmp_path
    )
    text = path.read_text(encoding="utf-8")
    assert json.loads(text) == {
        "settings": {"seeds": [0, 1]},
        "rows": [{"x": 0.333333, "y": [2.0, {"z": 0.0}]}, {"é": 1}],
    }
    assert len(text.splitlines()) == 7


def test_what_cannot_be_stored_leaves_the_old_file(tmp_path):
    path = store("a", {}, [{"x": 1}], tmp_path)
    old = path.read_bytes()
    for bad in (float("nan"), float("inf"), object()):
        with pytest.raises((ValueError, TypeError)):
            store("a", {}, [{"x": bad}], tmp_path)
        assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def stored_names(path):
    """The names under which a script stores its results."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {
        node.args[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "store"
    }


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_every_experiment_stores_under_its_own_name(path):
    names = stored_names(path)
    assert path.stem in names
    assert all(name.startswith(path.stem) for name in names)


def test_every_result_has_its_experiment():
    names = set().union(*map(stored_names, SCRIPTS))
    assert {path.stem for path in RESULTS.glob("*.json")} == names
