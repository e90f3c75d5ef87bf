"""Appendix C: the stored rows belong to the scripts, and its PPO does what the text says."""

import json
import math
from dataclasses import asdict, replace

import pytest
import torch

from dpo_lib import dpo_loss, get_pair_log_probs, make_reference
from dpo_lib.data import pad
from dpo_lib.experiments import in_practice, ppo
from dpo_lib.experiments.store import RESULTS
from dpo_lib.models import load_sft
from dpo_lib.world import judge, world_tokenizer

PROMPTS = ["My order is late.", "The capital of France", "List two animals."]


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


def test_the_rows_of_ppo_are_complete():
    stored = read("ppo")
    config = asdict(ppo.PPOConfig())
    assert {name: stored["settings"][name] for name in config} == config
    assert stored["settings"]["reward_model"] == asdict(ppo.RewardConfig())
    assert [f["beta"] for f in stored["settings"]["frontier"]] == ppo.BEST_BETAS
    steps = range(0, config["iterations"] + 1, ppo.EVERY)
    assert [(row["reward"], row["seed"], row["iteration"]) for row in stored["rows"]] == [
        (reward, seed, step) for reward in ppo.REWARDS for seed in ppo.SEEDS for step in steps
    ]


def test_every_run_starts_from_the_sft_model_and_measures_as_dpo_does():
    first = next(row for row in read("preference_runs")["rows"] if row["step"] == 0)
    for row in read("ppo")["rows"]:
        if row["iteration"] == 0:
            for name in ("true_reward", "kl", "malformed", "length"):
                assert row[name] == pytest.approx(first[name], abs=1e-6)


def test_the_best_policies_lie_on_a_frontier():
    front = read("ppo")["settings"]["frontier"]
    for row in front:
        assert row["log_z"] == pytest.approx(row["true_reward"] / row["beta"] - row["kl"], abs=1e-5)
    for name in ("kl", "true_reward"):
        values = [row[name] for row in front]
        assert values == sorted(values)


def test_the_held_out_complaints_are_not_trained_on():
    seen, unseen = in_practice.complaints()
    assert (len(seen), len(unseen)) == (16, 4)
    assert {record.prompt for record in in_practice.support_pairs(0).records} == set(seen)


@pytest.fixture(scope="module")
def small():
    return ppo.PPOConfig(replies=5, iterations=1, epochs=1, max_new_tokens=12)


def drifted(machine):
    """Let policy and value model differ from where they start."""
    torch.manual_seed(0)
    with torch.no_grad():
        for model in (machine.policy, machine.value):
            for parameter in model.parameters():
                parameter += 0.02 * torch.randn_like(parameter)
    return machine


def test_with_lambda_one_returns_are_the_reward_less_the_penalty(small):
    machine = drifted(ppo.PPO(None, PROMPTS, 1, replace(small, discount=1.0, beta=0.7)))
    rollout = machine.roll_out()
    kept = ppo.get_token_log_probs(machine.reference, *rollout.texts)
    penalty = 0.7 * (rollout.old_logps - kept) * rollout.mask  # (B, R)
    ahead = penalty.flip(1).cumsum(dim=1).flip(1)  # of this token and all later ones
    expected = (rollout.reward[:, None] - ahead) * rollout.mask
    assert torch.allclose(rollout.returns * rollout.mask, expected)


def test_the_true_reward_is_the_judges(small):
    machine, ids = ppo.PPO(None, PROMPTS, 3, small), world_tokenizer()
    answers = ["I am sorry. I will track your order.", "is Lyon.", "red, blue"]
    response, mask = pad([ids.encode_response(text) for text in answers], ids.pad_id, "right")
    prompt, prompt_mask = pad([ids.encode_prompt(text) for text in PROMPTS], ids.pad_id, "left")
    finished = torch.tensor([True, True, False])
    paid = machine.pay(PROMPTS, (prompt, response, prompt_mask, mask), finished)
    judged = map(judge, PROMPTS, answers, finished.tolist())
    assert paid.tolist() == [verdict.reward for verdict in judged]


def test_a_score_is_read_at_the_last_token_whatever_the_padding():
    torch.manual_seed(1)
    model, ids = ppo.Scorer(), world_tokenizer()
    torch.nn.init.normal_(model.head.weight)
    response = ids.encode_response("I am sorry. Please wait.")
    prompt = ids.encode_prompt("My order is late.")

    def scored(left, right):
        row = torch.tensor([[ids.pad_id] * left + prompt])
        answer = torch.tensor([response + [ids.pad_id] * right])
        masks = (row != ids.pad_id).long(), torch.tensor([[1] * len(response) + [0] * right])
        return ppo.score(model, row, answer, *masks)

    whole = torch.tensor([prompt + response])
    expected = model(whole, torch.ones_like(whole))[:, -1]
    for padding in ((0, 0), (3, 0), (0, 4), (2, 5)):
        assert torch.allclose(scored(*padding), expected)


def test_tokens_beyond_the_clip_range_in_their_own_direction_pull_no_more(small):
    machine = ppo.PPO(None, PROMPTS, 2, small)
    rollout = machine.roll_out()
    advantage = torch.linspace(-1, 1, rollout.mask.shape[1]).expand(rollout.mask.shape)
    better = advantage > advantage[rollout.mask.bool()].mean()
    moved = rollout.old_logps - torch.where(better, 1.0, -1.0)  # ratios of e and 1 / e
    machine.update(rollout._replace(advantage=advantage, old_logps=moved))
    kept = load_sft().state_dict()
    assert all(torch.equal(v, kept[k]) for k, v in machine.policy.state_dict().items())
    machine.update(rollout._replace(advantage=advantage))
    assert any(not torch.equal(v, kept[k]) for k, v in machine.policy.state_dict().items())


def test_reference_and_reward_model_never_learn(small):
    reward = ppo.Scorer().eval().requires_grad_(False)
    torch.manual_seed(2)
    torch.nn.init.normal_(reward.head.weight)  # from zeros, all rewards would be equal
    machine = ppo.PPO(reward, PROMPTS, 0, small)
    before = {k: v.clone() for k, v in reward.state_dict().items()}
    machine.iterate()
    for name, value in machine.reference.state_dict().items():
        assert torch.equal(value, load_sft().state_dict()[name])
    assert all(torch.equal(v, before[k]) for k, v in reward.state_dict().items())
    assert any(
        not torch.equal(v, load_sft().state_dict()[k])
        for k, v in machine.policy.state_dict().items()
    )


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
