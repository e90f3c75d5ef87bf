"""Appendix E's specimens: one line each, on a copy of the library, with stored runs to match."""

import difflib
import inspect
import json
import math
import sys
from dataclasses import replace
from importlib import import_module

import pytest
import torch

from dpo_lib.evaluation import evaluate_margins
from dpo_lib.experiments import bug_zoo
from dpo_lib.experiments.store import RESULTS
from dpo_lib.models import load_sft


@pytest.fixture(scope="module")
def stored():
    return json.loads((RESULTS / "bug_zoo.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("bug", bug_zoo.BUGS, ids=lambda bug: bug.name)
def test_a_bug_is_one_line_that_stands_once(bug):
    source = inspect.getsource(import_module(bug.module))
    broken = bug.apply(source)
    diff = difflib.ndiff(source.splitlines(), broken.splitlines())
    assert sum(line.startswith("- ") for line in diff) == 1
    compile(broken, bug.module, "exec")
    with pytest.raises(ValueError, match="0 times"):
        replace(bug, line="no such line").apply(source)


def test_a_line_that_stands_more_than_once_is_refused():
    source = inspect.getsource(import_module("dpo_lib.data.records"))
    bug = bug_zoo.Bug("twice", "", "dpo_lib.data.records", "import ", "import  ")
    with pytest.raises(ValueError, match=r"stands \d\d times in dpo_lib.data.records"):
        bug.apply(source)


def test_an_animal_of_the_reader_s_own_is_welcome():
    places = bug_zoo.Bug(
        "places",
        "Pads counted as positions",
        "dpo_lib.logprobs",
        "(mask.cumsum(dim=1) - 1).clamp(min=0)",
        "torch.arange(mask.shape[1]).expand(mask.shape)",
    )
    pairs = [
        bug_zoo.PreferenceRecord(x, "It is Paris.", "Paris.") for x in ("My", "My order is late.")
    ]
    dataset = bug_zoo.PreferenceDataset(pairs, bug_zoo.world_tokenizer())
    with torch.no_grad():
        scores = [
            bug_zoo.broken_library(one).logprobs.get_pair_log_probs(load_sft(), dataset.batch())[0]
            for one in (places, "sound")
        ]
    assert scores[0][0] != pytest.approx(scores[1][0].item(), abs=1e-3)  # padded on the left
    assert scores[0][1] == pytest.approx(scores[1][1].item())


def test_the_library_itself_stays_sound():
    before = {name: import_module(name) for name in bug_zoo.MODULES.values()}
    broken = bug_zoo.broken_library("swap")
    assert {name: sys.modules[name] for name in bug_zoo.MODULES.values()} == before
    assert broken.logprobs is not before["dpo_lib.logprobs"]
    assert broken.bare_loop.get_pair_log_probs is broken.logprobs.get_pair_log_probs
    assert broken.evaluation.PreferenceDataset is broken.data.PreferenceDataset


def test_the_unbroken_copy_is_the_library():
    library = bug_zoo.broken_library("sound")
    _, held_out = bug_zoo.split(0)
    policy, tokenizer = load_sft(), bug_zoo.world_tokenizer()
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(1.01)
    ours = library.data.PreferenceDataset(held_out[:20], tokenizer)
    own = library.evaluation.evaluate_margins(policy, load_sft(), ours, 1.0)
    sound = evaluate_margins(
        policy, load_sft(), bug_zoo.PreferenceDataset(held_out[:20], tokenizer), 1.0
    )
    assert tuple(own) == tuple(sound)


def test_the_policy_starts_as_the_sft_model_and_can_drop_features():
    policy, tokens = bug_zoo.new_policy(), torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        assert torch.equal(policy(tokens), load_sft()(tokens))
        policy.train()
        assert not torch.equal(policy(tokens), policy(tokens))


def test_the_stored_rows_are_complete_and_of_these_bugs(stored):
    assert stored["settings"] == json.loads(json.dumps(bug_zoo.settings()))
    assert [(row["bug"], row["seed"]) for row in stored["rows"]] == [
        (name, seed) for name in bug_zoo.NAMES for seed in bug_zoo.SEEDS
    ]
    bins = bug_zoo.SETTINGS["steps"] // bug_zoo.BIN
    looks = bug_zoo.SETTINGS["steps"] // bug_zoo.SETTINGS["every"] + 1
    for row in stored["rows"]:
        assert {len(values) for values in row["updates"].values()} == {bins}
        assert {len(values) for values in row["looks"].values()} == {looks}


def test_all_runs_start_from_one_policy(stored):
    for seed in bug_zoo.SEEDS:
        rows = [row for row in stored["rows"] if row["seed"] == seed]
        for key in ("true_reward", "malformed", "length", "eos"):
            assert len({row["looks"][key][0] for row in rows}) == 1
        first = {row["bug"]: row["first"]["loss"] for row in rows}
        for name in set(first) - {"dropout", "dtype"}:
            assert first[name] == pytest.approx(math.log(2), abs=1e-6)


@pytest.mark.parametrize("name", ["pads", "reference"])
def test_a_short_run_gives_the_stored_beginning(stored, name):
    _, updates, looks = bug_zoo.run(name, 3, steps=bug_zoo.BIN)
    row = bug_zoo.row(name, 3, updates, looks)
    (twin,) = (r for r in stored["rows"] if (r["bug"], r["seed"]) == (name, 3))
    for key, values in row["updates"].items():
        assert values == pytest.approx(twin["updates"][key][:1], abs=2e-4)
    for key, values in row["looks"].items():
        assert values[0] == pytest.approx(twin["looks"][key][0], abs=2e-4)
    for key in ("reference_logp", "scored"):
        assert row[key] == pytest.approx(twin[key])


def test_the_fine_tuned_rows_are_complete():
    stored = json.loads((RESULTS / "bug_zoo_sft.json").read_text(encoding="utf-8"))
    settings = {**bug_zoo.FINE_TUNING, "sampling": bug_zoo.SAMPLING}
    assert stored["settings"] == json.loads(json.dumps(settings))
    assert [(row["bug"], row["seed"]) for row in stored["rows"]] == [
        (name, seed) for name in ("sound", "eos") for seed in bug_zoo.SEEDS
    ]
