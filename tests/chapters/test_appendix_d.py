"""The stored results of appendix D belong to the scripts as they stand, and say what it says."""

import json
from dataclasses import replace
from statistics import mean

import pytest

from dpo_lib import make_reference, train_dpo
from dpo_lib.experiments import (
    beta_frontier,
    displacement,
    label_noise,
    length_exploitation,
    online,
    relatives,
    score_gaps,
)
from dpo_lib.experiments import preference_runs as runs
from dpo_lib.experiments.store import RESULTS
from dpo_lib.models import load_sft
from dpo_lib.world import true_reward


def read(script):
    name = script.__name__.rpartition(".")[2]
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def column(script, key, **which):
    found = [r[key] for r in read(script)["rows"] if all(r[k] == v for k, v in which.items())]
    assert len(found) == 5
    return found


def test_the_rows_are_complete():
    def keys(script, *names):
        return [tuple(row[name] for name in names) for row in read(script)["rows"]]

    seeds = range(5)
    assert keys(beta_frontier, "loss", "beta", "seed") == [
        (n, b, s) for n in beta_frontier.NAMES for b in beta_frontier.BETAS for s in seeds
    ]
    assert keys(label_noise, "beta", "loss", "seed") == [
        (b, n, s) for b in label_noise.BETAS for n in label_noise.OPTIONS for s in seeds
    ]
    assert keys(length_exploitation, "run", "seed") == [
        (n, s) for n in length_exploitation.RUNS for s in seeds
    ]
    assert keys(displacement, "loss", "seed", "step") == [
        (n, s, t) for n in displacement.NAMES for s in seeds for t in range(20, 201, 20)
    ]
    assert keys(relatives, "loss", "beta", "seed") == [
        (n, b, s) for n, some in relatives.BETAS.items() for b in some for s in seeds
    ]
    assert keys(score_gaps, "arm", "beta", "seed") == [
        (a, b, s) for a in score_gaps.ARMS for b in score_gaps.BETAS for s in seeds
    ]
    assert keys(online, "seed", "arm") == [
        (s, a) for s in seeds for a in ["first round", *online.ARMS]
    ]


@pytest.mark.parametrize(
    "script", [beta_frontier, displacement, label_noise, length_exploitation, online, score_gaps]
)
def test_the_settings_are_those_of_the_scripts(script):
    settings, config = read(script)["settings"], script.CONFIG
    for name in ("learning_rate", "batch_size", "steps"):
        assert settings[name] == getattr(config, name)
    assert settings["seeds"] == [*script.SEEDS]
    assert settings["sampling"] == runs.SAMPLING


def test_the_first_round_is_the_run_of_chapter_8():
    for key in ("true_reward", "kl", "length", "malformed"):
        other = column(runs, key, loss="dpo", beta=online.BETA, step=100)
        assert column(online, key, arm="first round") == pytest.approx(other, abs=1e-3)


def test_flipping_turns_about_the_share_of_the_labels_and_no_pair_is_lost():
    dataset, _ = runs.split(0)
    noisy = label_noise.flipped(dataset, 0.3, seed=0)
    turned = [
        (old.chosen, old.rejected) == (new.rejected, new.chosen)
        for old, new in zip(dataset.records, noisy.records, strict=True)
    ]
    assert len(noisy) == len(dataset)
    assert mean(turned) == pytest.approx(0.3, abs=0.05)
    assert label_noise.flipped(dataset, 0.0, seed=0).records == dataset.records


def test_scores_become_labels():
    records = runs.split(0)[0].records
    summed, offset, apart = (score_gaps.labeled(records, arm) for arm in score_gaps.ARMS)
    assert summed == offset
    for records_, gaps in (summed, apart):
        assert len(records_) == len(gaps)
        assert min(gaps) > 0
    for record, gap in zip(*summed, strict=True):
        better, worse = (true_reward(record.prompt, x) for x in (record.chosen, record.rejected))
        assert better - worse == pytest.approx(gap)
    # both scores of a pair that disagree give it in both orders
    orders = {(r.prompt, r.chosen, r.rejected) for r in apart.records}
    assert orders & {(prompt, second, first) for prompt, first, second in orders}


def test_the_loop_of_the_score_gaps_is_that_of_the_library():
    dataset, _ = runs.split(0)
    policy, ours = load_sft(), load_sft()
    reference = make_reference(policy)
    config = replace(score_gaps.CONFIG, beta=0.3, seed=0, steps=2)
    theirs = train_dpo(policy, reference, dataset, config, progress=False).column("margin")
    zeros = [0.0] * len(dataset)
    margins = score_gaps.train(ours, reference, dataset, zeros, seed=0, beta=0.3, steps=2)
    assert margins == pytest.approx(theirs, abs=1e-6)
    assert margins[1] > 0.001


def test_the_likelihood_term_repairs_and_own_pairs_help():
    plain = column(runs, "malformed", loss="dpo", beta=0.1, step=200)
    repaired = column(displacement, "malformed", loss="rpo", step=200)
    assert all(a > 3 * b for a, b in zip(plain, repaired, strict=True))
    own = column(online, "true_reward", arm="own pairs")
    control = column(online, "true_reward", arm="fresh pairs of the SFT model")
    assert all(a > b for a, b in zip(own, control, strict=True))
