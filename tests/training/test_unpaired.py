"""Thumbs through the loop: KTO's level, its update by hand, and that it learns what is liked."""

import dataclasses
import functools
import itertools
import math

import pytest
import torch

from dpo_lib import fingerprint, get_sequence_log_probs, make_reference
from dpo_lib.data import UnpairedDataset, UnpairedRecord
from dpo_lib.evaluation import evaluate_samples
from dpo_lib.fast.pair_log_probs import PairLogProbs
from dpo_lib.losses import unpaired_kto_loss
from dpo_lib.models import InstructionTokenizer, load_sft
from dpo_lib.training import DPOConfig, train_dpo
from dpo_lib.world import judge, load_pairs, preference_prompts, true_reward, world_tokenizer
from tests.helpers import looks_at_values
from tests.training.runs import CONFIG, Stopped, evaluate_until, load_thumbs, new_policy, run

KTO = dataclasses.replace(CONFIG, batch_size=8, beta=0.7, max_grad_norm=math.inf)


@pytest.fixture(scope="module")
def thumbs():
    return load_thumbs()


def below():
    """A reference so sharp at random that most of what the policy may say is less likely."""
    reference = make_reference(new_policy())
    reference.final_norm.weight.data *= 30
    return reference


def train(thumbs, config=KTO, loss="kto", reference=None, **options):
    policy = new_policy()
    history = train_dpo(
        policy, reference or below(), thumbs, config, loss=loss, progress=False, **options
    )
    return policy, history


def encoded(prompt, response, desired=True):
    return {"prompt": prompt, "response": response, "desirable": desired}


def dataset_of(rows):
    records = [UnpairedRecord("a", "b", row["desirable"]) for row in rows]
    return UnpairedDataset(records, InstructionTokenizer(), rows)


# --- responses to other prompts ------------------------------------------------------------------


def test_every_row_has_a_response_to_another_prompt(thumbs):
    answers = {tuple(row["response"]): row["prompt"] for row in thumbs.rows}
    for row in thumbs.rows:
        assert answers[tuple(row["mismatched"])] != row["prompt"]
    assert len({tuple(row["mismatched"]) for row in thumbs.rows}) > 6
    assert thumbs.rows == load_thumbs().rows
    assert thumbs.take([3, 1]).rows == [thumbs.rows[3], thumbs.rows[1]]


def test_one_prompt_among_many_of_another_is_found():
    rows = [encoded([1], [2, i]) for i in range(500)] + [encoded([9], [7])]
    found = [row["mismatched"] for row in dataset_of(rows).rows]
    assert found[:-1] == [[7]] * 500
    assert found[-1][0] == 2


def test_a_mismatched_row_is_no_longer_than_the_longest():
    rows = [encoded([1] * 9, [2]), encoded([3], [4, 5, 6]), encoded([7], [8, 8])]
    found = [row["mismatched"] for row in dataset_of(rows).rows]
    assert found[0] == [8]  # the beginning of the shortest: there is room for one token
    assert found[1] in ([2], [8, 8])


def test_thumbs_of_one_prompt_have_no_level():
    rows = [encoded([1], [2]), encoded([1], [3], False)]
    with pytest.raises(ValueError, match="all thumbs have one prompt"):
        train(dataset_of(rows))


# --- an update -----------------------------------------------------------------------------------


def log_ratios(dataset, places, name, policy, reference):
    batch = dataset.batch(places)
    parts = batch["prompt"], batch[name], batch["prompt_mask"], batch[f"{name}_mask"]
    with torch.no_grad():
        known = get_sequence_log_probs(reference, *parts)
    return get_sequence_log_probs(policy, *parts) - known


@pytest.mark.parametrize("packed", [True, False])
def test_an_update_is_the_papers_formula_and_adam(thumbs, packed):
    options = {"desirable_weight": 1.5, "undesirable_weight": 0.5}
    config = dataclasses.replace(KTO, steps=1, packed=packed)
    loss = functools.partial(unpaired_kto_loss, **options)
    policy, history = train(thumbs, config, loss)

    by_hand, reference = new_policy(), below()
    optimizer = torch.optim.Adam(by_hand.parameters(), lr=config.learning_rate)
    places = thumbs.pairs_of_step(0, config.batch_size, config.seed)
    up = torch.tensor([thumbs[int(i)]["desirable"] for i in places])
    ratio = log_ratios(thumbs, places, "response", by_hand, reference)
    level = log_ratios(thumbs, places, "mismatched", by_hand, reference).mean().detach()
    assert level > 1  # it is not cut off at 0
    value = torch.where(
        up,
        1.5 * (1 - torch.sigmoid(config.beta * (ratio - level))),
        0.5 * (1 - torch.sigmoid(config.beta * (level - ratio))),
    ).mean()
    value.backward()
    optimizer.step()
    row = history.steps[0]
    assert row["loss"] == pytest.approx(value.item(), rel=1e-9)
    assert row["level"] == pytest.approx(level.item(), rel=1e-9)
    assert row["desirable_logp"] == pytest.approx(ratio[up].mean().item(), rel=1e-9)
    assert row["undesirable_logp"] == pytest.approx(ratio[~up].mean().item(), rel=1e-9)
    gap = config.beta * (ratio[up].mean() - ratio[~up].mean()).item()
    assert row["margin"] == pytest.approx(gap, rel=1e-9)
    for ours, expected in zip(policy.parameters(), by_hand.parameters(), strict=True):
        assert torch.allclose(ours, expected, atol=1e-9)


@pytest.mark.parametrize("parts", [2, 3, 4])
def test_parts_of_a_batch_share_its_level(thumbs, parts):
    (one, whole), (two, split) = (
        train(thumbs, dataclasses.replace(KTO, accumulate=n)) for n in (1, parts)
    )
    assert max(whole.column("level")) > 1
    for row, expected in zip(split.steps, whole.steps, strict=True):
        assert row == pytest.approx(expected, rel=1e-8, abs=1e-10)
    for ours, expected in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.allclose(ours, expected, atol=1e-8)


def test_a_fixed_level_is_taken_as_it_is(thumbs):
    config = dataclasses.replace(KTO, steps=1)
    fixed = functools.partial(unpaired_kto_loss, kl=0.0)
    (_, without), (_, with_level) = train(thumbs, config, fixed), train(thumbs, config)
    assert without.steps[0]["desirable_logp"] == with_level.steps[0]["desirable_logp"]
    assert without.steps[0]["loss"] < with_level.steps[0]["loss"] - 0.01


def test_it_starts_with_one_half_and_a_tie(thumbs):
    _, history = train(thumbs, reference=make_reference(new_policy()))
    first = history.steps[0]
    assert first["loss"] == pytest.approx(0.5, abs=1e-9)
    assert first["reward_auc"] == 0.5
    assert first["level"] == pytest.approx(0, abs=1e-9)


def test_a_batch_of_one_kind_has_no_number_of_the_other(thumbs):
    config = dataclasses.replace(KTO, batch_size=1, steps=8)
    _, history = train(thumbs, config)
    for row in history.steps:
        kind = thumbs[int(thumbs.pairs_of_step(row["step"], 1, config.seed)[0])]["desirable"]
        assert ("desirable_logp" in row) == kind
        assert ("undesirable_logp" in row) != kind
        assert not {"reward_auc", "margin"} & row.keys()
        assert all(math.isfinite(value) for value in row.values())


@pytest.mark.parametrize("parts", [1, 2])
def test_an_update_waits_for_the_device_once(thumbs, monkeypatch, parts):
    forward = PairLogProbs.forward

    def uncounted(self, rows):  # it checks ids on the CPU, before they go to the device
        with looks.paused():
            return forward(self, rows)

    monkeypatch.setattr(PairLogProbs, "forward", uncounted)
    config, numbers = dataclasses.replace(KTO, steps=4, accumulate=parts), []
    with looks_at_values() as looks:
        train(thumbs, config, on_step=lambda row: numbers.append(looks.number))
    assert [b - a for a, b in itertools.pairwise(numbers)] == [1] * 3


def test_an_interrupted_run_ends_with_the_same_bits(thumbs, tmp_path):
    whole, history = train(thumbs, evaluate=evaluate_until(0))
    options = {"checkpoint": tmp_path / "run.pt"}
    with pytest.raises(Stopped):
        train(thumbs, evaluate=evaluate_until(3), **options)
    resumed, second = train(thumbs, evaluate=evaluate_until(0), **options)
    assert fingerprint(resumed) == fingerprint(whole)
    assert second.steps == history.steps
    turned = [{**row, "desirable": not row["desirable"]} for row in thumbs.rows]
    with pytest.raises(ValueError, match="of another run: data was '20 thumbs"):
        train(UnpairedDataset(thumbs.records, thumbs.tokenizer, turned), **options)


def test_the_reference_is_kept_between_runs(thumbs, tmp_path):
    _, first = train(thumbs, reference_cache=tmp_path)
    (file,) = tmp_path.iterdir()
    response, mismatched = torch.load(file)
    torch.save((response, mismatched - 5), file)
    _, second = train(thumbs, reference_cache=tmp_path)
    assert second.steps[0]["level"] == pytest.approx(first.steps[0]["level"] + 5)


def test_losses_of_the_other_kind_are_refused(dataset, thumbs):
    with pytest.raises(ValueError, match=r"dpo_loss compares .* pair, but the data are thumbs"):
        train(thumbs, loss="dpo")
    with pytest.raises(ValueError, match=r"unpaired_kto_loss takes thumbs.* the data are pairs"):
        run(dataset, loss=unpaired_kto_loss)


# --- what it learns ------------------------------------------------------------------------------


def liked(seed):
    """Thumbs of the tiny world: up with the probability that a judge's reward gives."""
    generator = torch.Generator().manual_seed(seed)
    answers = [(p.prompt, text) for p in load_pairs() for text in (p.first, p.second)]
    rewards = torch.tensor([true_reward(*answer) for answer in answers])
    up = torch.rand(len(rewards), generator=generator) < torch.sigmoid(rewards - rewards.mean())
    records = [UnpairedRecord(*a, bool(thumb)) for a, thumb in zip(answers, up, strict=True)]
    return UnpairedDataset(records, world_tokenizer())


def reward_of(model, seed):
    found = evaluate_samples(
        model, world_tokenizer(), preference_prompts(), judge=judge, per_prompt=8, seed=seed
    )
    return found.true_reward


def test_thumbs_raise_the_true_reward():
    """Five seeds of labels, order and samples; each gains more than three standard errors."""
    for seed in range(5):
        policy = load_sft()
        before = reward_of(policy, seed)
        config = DPOConfig(beta=1.0, learning_rate=1e-3, steps=16, batch_size=64, seed=seed)
        train_dpo(policy, None, liked(seed), config, loss="kto", progress=False)
        after = reward_of(policy, seed)
        error = math.hypot(before.error, after.error)
        assert after.mean - before.mean > 3 * error, (seed, before, after)
