"""Appendix C: the stored rows belong to the script, and its arms differ as the text says."""

import json
import math
from dataclasses import replace

import pytest
import torch

from dpo_lib import dpo_loss, get_pair_log_probs, make_reference
from dpo_lib.models import load_sft
from experiments import in_practice
from experiments.store import RESULTS


def read(name):
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def test_the_rows_are_complete():
    stored = read("in_practice")
    settings = stored["settings"]
    for name in ("beta", "learning_rate", "steps", "batch_size"):
        assert settings[name] == getattr(in_practice.CONFIG, name)
    assert (settings["fast"], settings["every"]) == (in_practice.FAST, in_practice.EVERY)
    assert settings["support"] == {
        "steps": in_practice.SUPPORT.steps,
        "batch_size": in_practice.SUPPORT.batch_size,
        "unseen": in_practice.UNSEEN,
    }
    assert settings["sampling"] == in_practice.SAMPLING
    assert [(row["arm"], row["seed"]) for row in stored["rows"]] == [
        (arm, seed) for arm in [*in_practice.ARMS, "support"] for seed in in_practice.SEEDS
    ]


def test_one_thing_is_changed_against_the_sound_run():
    settings = read("preference_runs")["settings"]
    for name in ("learning_rate", "batch_size", "max_grad_norm", "schedule"):
        assert settings[name] == getattr(in_practice.CONFIG, name)
    assert settings["sampling"] == in_practice.SAMPLING
    assert 10 * settings["learning_rate"] == in_practice.FAST


def test_the_held_out_complaints_are_not_trained_on():
    seen, unseen = in_practice.complaints()
    assert (len(seen), len(unseen)) == (16, 4)
    assert {record.prompt for record in in_practice.support_pairs(0).records} == set(seen)


def test_the_reference_moves_only_when_told():
    config = replace(in_practice.CONFIG, steps=3, batch_size=8)
    dataset = in_practice.support_pairs(0)
    policy = load_sft()
    kept = in_practice.moving(policy, dataset, config, every=3)
    reference, policy = make_reference(load_sft()), load_sft()
    optimizer = torch.optim.AdamW(policy.parameters(), 2e-4, weight_decay=0.0)
    for row, batch in zip(kept, dataset.batches(8, 3, config.seed), strict=True):
        others = get_pair_log_probs(reference, batch)
        loss = dpo_loss(*get_pair_log_probs(policy, batch), *others, config.beta).losses.mean()
        assert row["loss"] == pytest.approx(loss.item(), rel=1e-9)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), config.max_grad_norm)
        optimizer.step()
    always = in_practice.moving(load_sft(), dataset, config, every=1)
    assert [row["loss"] for row in always] == pytest.approx([math.log(2)] * 3)
