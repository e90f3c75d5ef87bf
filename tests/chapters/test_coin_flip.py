"""The stored results of the experiments of chapters 6 and 7 belong to the scripts as they stand."""

import json
from dataclasses import asdict, replace

import pytest

from dpo_lib.experiments import best_of_n, coin_flip
from dpo_lib.experiments.store import RESULTS

FLIPS = {"coin_flip": coin_flip.CONFIG.beta, "coin_flip_low_beta": coin_flip.LOW_BETA}


def read(name):
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", FLIPS)
def test_the_coin_flip_rows_are_complete(name):
    stored, config = read(name), replace(coin_flip.CONFIG, beta=FLIPS[name])
    settings = {key: value for key, value in stored["settings"].items() if key in asdict(config)}
    assert replace(config, **settings) == config
    assert {"beta", "learning_rate", "steps", "batch_size"} <= settings.keys()
    assert stored["settings"]["sampling"] == coin_flip.SAMPLING
    steps = [*range(0, config.steps + 1, config.eval_every)]
    assert [(row["seed"], row["loss"], row["step"]) for row in stored["rows"]] == [
        (seed, loss, step)
        for seed in coin_flip.SEEDS
        for loss in coin_flip.LOSSES
        for step in steps
    ]


def test_every_coin_flip_run_starts_from_the_sft_model():
    starts = [row for name in FLIPS for row in read(name)["rows"] if row["step"] == 0]
    for name, value in starts[0].items():
        if name not in ("seed", "loss"):
            assert {row[name] for row in starts} == {value}
    assert starts[0]["kl"] == pytest.approx(0, abs=1e-6)


def test_the_best_of_n_rows_are_complete():
    stored = read("best_of_n")
    assert stored["settings"]["prompts"] == len(best_of_n.PROMPTS)
    assert stored["settings"]["bland"] == list(best_of_n.BLAND)
    assert [(row["seed"], row["n"]) for row in stored["rows"]] == [
        (seed, n) for seed in best_of_n.SEEDS for n in best_of_n.SIZES
    ]
