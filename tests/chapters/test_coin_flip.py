"""The stored results of the experiments of chapters 6 and 7 belong to the scripts as they stand."""

import json
from dataclasses import asdict, replace

import pytest

from dpo_lib.experiments import best_of_n, coin_flip
from dpo_lib.experiments.store import RESULTS


def read(script):
    name = script.__name__.rpartition(".")[2]
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def test_the_coin_flip_rows_are_complete():
    stored, config = read(coin_flip), asdict(coin_flip.CONFIG)
    settings = {key: value for key, value in stored["settings"].items() if key in config}
    assert replace(coin_flip.CONFIG, **settings) == coin_flip.CONFIG
    assert {"beta", "learning_rate", "steps", "batch_size"} <= settings.keys()
    assert stored["settings"]["sampling"] == coin_flip.SAMPLING
    steps = [*range(0, config["steps"] + 1, config["eval_every"])]
    assert [(row["seed"], row["loss"], row["step"]) for row in stored["rows"]] == [
        (seed, loss, step)
        for seed in coin_flip.SEEDS
        for loss in coin_flip.LOSSES
        for step in steps
    ]


def test_every_coin_flip_run_starts_from_the_sft_model():
    starts = [row for row in read(coin_flip)["rows"] if row["step"] == 0]
    for name, value in starts[0].items():
        if name not in ("seed", "loss"):
            assert {row[name] for row in starts} == {value}
    assert starts[0]["kl"] == pytest.approx(0, abs=1e-6)


def test_the_best_of_n_rows_are_complete():
    stored = read(best_of_n)
    assert stored["settings"]["prompts"] == len(best_of_n.PROMPTS)
    assert stored["settings"]["bland"] == list(best_of_n.BLAND)
    assert [(row["seed"], row["n"]) for row in stored["rows"]] == [
        (seed, n) for seed in best_of_n.SEEDS for n in best_of_n.SIZES
    ]
