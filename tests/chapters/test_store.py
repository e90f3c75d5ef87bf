"""Results of experiments: rounded, a row a line, and never half a file."""

import ast
import functools
import hashlib
import importlib
import json
import re
from pathlib import Path

import pytest

from dpo_lib.experiments.store import RESULTS, store
from tools import claims

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "dpo_lib" / "experiments"
SCRIPTS = sorted(p for p in FOLDER.glob("*.py") if "__main__" in p.read_text("utf-8"))


def test_rows_stand_on_lines_of_their_own_and_are_rounded(tmp_path):
    path = store(
        "a", {"seeds": range(2)}, [{"x": 1 / 3, "y": [2.0, {"z": 1e-9}]}, {"é": 1}], tmp_path
    )
    text = path.read_text(encoding="utf-8")
    stored = json.loads(text)
    assert stored.pop("sha256") == sum_of_the_rest(path)
    assert stored == {
        "settings": {"seeds": [0, 1]},
        "rows": [{"x": 0.333333, "y": [2.0, {"z": 0.0}]}, {"é": 1}],
    }
    assert len(text.splitlines()) == 8


def sum_of_the_rest(path):
    """SHA-256 of what stands below the second line of a file, where its own sum is."""
    return hashlib.sha256(path.read_bytes().split(b"\n", 2)[2]).hexdigest()


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_a_result_is_as_its_experiment_wrote_it(path):
    assert json.loads(path.read_text(encoding="utf-8"))["sha256"] == sum_of_the_rest(path)


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


# --- nothing is stored that nobody reads ---------------------------------------------------------

# Fields of a row that no table, figure, claim or test reads by name, and why they are kept. A new
# one is read somewhere, or is taken out of script and file, or stands here with a reason.
LOOK = "measured by preference_runs.look with the others, of which each page shows its own"
OWN = "what a run reports of its own batches, stored alike for every loss"
UNREAD = {
    "correct": LOOK,
    "sum_correct": LOOK,
    "accuracy": LOOK,
    "train_loss": OWN,
    "train_reward_accuracy": OWN,
    "greedy_ends": "own_draws: whether greedy answers end, beside the drawn ones that are shown",
    "greedy_tokens": "own_draws: how long greedy answers are, beside the drawn ones that are shown",
    "this_share": "own_draws: what part of the price a run's own draws are",
    "error": "own_draws: standard error of the KL, which is shown without",
    "sample": "ppo: one reply of each iteration, to be looked at",
}
READERS = ("dpo_lib/**/*.py", "tests/**/*.py", "book/_ext/*.py", "tools/*.py")


@functools.cache
def readers():
    """Text of all that may read a result, by name: code, cells of code, a file's claims."""
    texts = {str(path): path.read_text("utf-8") for glob in READERS for path in ROOT.glob(glob)}
    for name in claims.book_files():
        if name.endswith(".ipynb"):
            cells = json.loads((ROOT / name).read_text("utf-8"))["cells"]
            code = ("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
            texts[name] = "\n".join(code)
    rows = (ROOT / "tests" / "claims.yaml").read_text("utf-8")
    return [*texts.values(), *re.split(r"\n(?=\S+:\n)", rows)]


def said(text):
    """Words in quotes, but for the keys of a dict, which write a field and do not read it."""
    quoted = [
        part
        for quote in "\"'"
        for part, key in re.findall(rf"{quote}([^{quote}\n]*){quote}(\s*:)?", text)
        if not key
    ]
    return {word for part in quoted for word in re.findall(r"[\w{}]+", part)}


def is_read(name, words):
    """Whether a field is named: as it is, or as an f-string makes it of words that are named."""
    if name in words:
        return True
    made = [re.split(r"\{\w*\}", word) for word in words if "{" in word]
    patterns = ["(.+)".join(map(re.escape, parts)) for parts in made if any(parts)]
    matches = filter(None, (re.fullmatch(pattern, name) for pattern in patterns))
    return any({*match.groups()} <= words for match in matches)


def fields(rows):
    """Names of fields, at any depth; a dict by names of things holds its fields within."""
    for row in rows:
        for name, value in row.items():
            yield name
            inner = [value] if isinstance(value, dict) else value if isinstance(value, list) else []
            yield from fields(part for part in inner if isinstance(part, dict))


def settings_now(name):
    """The settings that a script would store under a name today, as far as they need no run."""
    (path,) = (path for path in SCRIPTS if name in stored_names(path))
    tree = ast.parse(path.read_text("utf-8"))
    names = {**vars(importlib.import_module(f"dpo_lib.experiments.{path.stem}"))}
    names["frontier"] = lambda: result(name)["settings"]["frontier"]  # of ppo, measured
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and len(node.args) == 3]
    (given,) = (c.args[1] for c in calls if getattr(c.args[0], "value", "") == name)
    if getattr(given, "id", "") == "settings":  # built up in `main`
        for node in ast.walk(tree):
            targets = getattr(node, "targets", [getattr(node, "target", None)])
            if isinstance(node, ast.Assign | ast.AugAssign) and (
                getattr(targets[0], "id", "") == "settings"
            ):
                exec(compile(ast.Module([node], []), path.name, "exec"), names)
        found = names["settings"]
    else:
        found = eval(compile(ast.Expression(given), path.name, "eval"), names)
    return json.loads(json.dumps(found, default=list))


def result(name):
    return json.loads((RESULTS / f"{name}.json").read_text("utf-8"))


RESULT_NAMES = sorted(path.stem for path in RESULTS.glob("*.json"))


def words_about(name):
    """What is said in quotes where a result is named."""
    return set().union(*(said(t) for t in readers() if re.search(rf"\b{name}\b", t)))


@pytest.mark.parametrize("name", RESULT_NAMES)
def test_every_field_of_a_row_is_read(name):
    words = words_about(name)
    unread = sorted({n for n in fields(result(name)["rows"]) if not is_read(n, words)} - {*UNREAD})
    assert not unread, (
        f"dpo_lib/results/{name}.json: nothing reads {', '.join(unread)} of its rows by name: "
        "claim or test it, take it out of script and file, or give the reason in UNREAD"
    )


@pytest.mark.parametrize("name", RESULT_NAMES)
def test_every_setting_is_that_of_the_script_or_is_read(name):
    now, words = settings_now(name), words_about(name)
    for key, value in result(name)["settings"].items():
        assert (now[key] == value) if key in now else is_read(key, words), (
            f"dpo_lib/results/{name}.json: the setting {key} is {value!r:.80}, in the script "
            f"{now.get(key, 'there is none')!r:.80}"
        )


# A margin, and the two changes of log π whose difference it is, times β.
MARGINS = (
    ("margin", "chosen_shift", "rejected_shift"),
    ("train_margin", "train_chosen_logp", "train_rejected_logp"),
    ("held_margin", "held_chosen_shift", "held_rejected_shift"),
)


@pytest.mark.parametrize(
    "name", ["displacement", "preference_runs", "winners", "in_practice", "capstone"]
)
def test_a_margin_is_the_difference_of_its_sides(name):
    settings, found = result(name)["settings"], 0
    scale = settings.get("measured_at_beta", settings.get("beta", 1.0))
    for row in result(name)["rows"]:
        if row.get("variant") == "smaller reference":  # which starts elsewhere
            continue
        for margin, chosen, rejected in MARGINS:
            naive = row.get("loss") == "naive" and margin == "train_margin"  # has no reference
            if {margin, chosen, rejected} <= row.keys() and not naive:
                expected = row.get("beta", scale) * (row[chosen] - row[rejected])
                assert row[margin] == pytest.approx(expected, abs=3e-6)
                found += 1
    assert found >= 10


def test_the_parts_of_a_stored_evaluation_fit():
    stored = result("real_model")
    kinds = ("longer", "shorter")
    for row in stored["rows"]:
        margin = stored["settings"]["beta"] * (row["chosen_logp"] - row["rejected_logp"])
        assert row["margin"] == pytest.approx(margin, abs=3e-6)
        right = sum(row[f"pairs_chosen_{k}"] * row[f"accuracy_chosen_{k}"] for k in kinds)
        pairs = sum(row[f"pairs_chosen_{k}"] for k in kinds)
        assert row["accuracy"] == pytest.approx(right / pairs, abs=3e-6)
        assert row["k3"] >= 0
        assert abs(row["kl"] - row["k3"]) <= 3 * row["kl_error"]


@pytest.mark.parametrize("name", RESULT_NAMES)
def test_an_answer_is_right_or_malformed_or_neither(name):
    """And no estimate lies outside its own interval."""

    def parts(value):
        if isinstance(value, dict):
            yield value
        for inner in value.values() if isinstance(value, dict) else value:
            if isinstance(inner, dict | list):
                yield from parts(inner)

    for row in parts(result(name)["rows"]):
        for right, malformed in (("correct", "malformed"), ("sum_correct", "sum_malformed")):
            if right in row:
                assert 0 <= row[right] <= 1 - row[malformed] + 1e-6
        if "low" in row:
            assert row["low"] <= row.get("share", row.get("mean")) <= row["high"]


def test_every_reason_is_of_a_field_that_is_stored():
    assert {*UNREAD} <= {n for name in RESULT_NAMES for n in fields(result(name)["rows"])}


def test_what_names_a_field_and_what_writes_it():
    words = said(
        """row = {"kl": 1, 'length': 2}; row["reward"]; f"{part}_after"; "x y"; ["seen"]"""
    )
    assert not {"kl", "length"} & words
    assert {"reward", "x", "y"} <= words
    assert is_read("seen_after", words)
    assert not is_read("other_after", words)
    assert not is_read("kl", words)
