"""The training loop: the numbers it reports, the order of the pairs, and its errors."""

import dataclasses
import functools
import itertools
import math
import platform
import subprocess
import sys

import pytest
import torch
from torch import nn

from dpo_lib import fingerprint, get_pair_log_probs, make_reference
from dpo_lib.fast.cache import cache_reference_log_probs
from dpo_lib.fast.pair_log_probs import PairLogProbs
from dpo_lib.losses import (
    LOSSES,
    PreferenceLoss,
    as_loss_function,
    coupled,
    dpo_loss,
    takes_lengths,
)
from dpo_lib.training import dpo_training_step, train_dpo
from tests.helpers import looks_at_values
from tests.losses.facts import FACTS
from tests.training.runs import CONFIG, Stopped, evaluate_until, new_policy, run


def test_first_row_is_log_two_and_a_tie(dataset):
    for seed in range(5):
        _, history = run(dataset, config=dataclasses.replace(CONFIG, steps=1, seed=seed))
        first = history.steps[0]
        assert first["loss"] == pytest.approx(math.log(2), abs=1e-12)
        assert first["reward_accuracy"] == 0.5
        for name in ("margin", "chosen_logp", "rejected_logp"):
            assert first[name] == pytest.approx(0.0, abs=1e-11)


def test_training_lowers_the_loss_and_reports_what_it_did(dataset):
    _, history = run(dataset, config=dataclasses.replace(CONFIG, steps=20))
    assert history.column("step") == list(range(20))
    assert history.column("loss")[-1] < 0.3
    last = history.steps[-1]
    margin = CONFIG.beta * (last["chosen_logp"] - last["rejected_logp"])
    assert last["margin"] == pytest.approx(margin)


def test_one_update_equals_adam_on_the_dpo_loss(dataset):
    config = dataclasses.replace(CONFIG, steps=1, batch_size=len(dataset), max_grad_norm=math.inf)
    policy, _ = run(dataset, config=config)
    by_hand, reference = new_policy(), make_reference(new_policy())
    optimizer = torch.optim.Adam(by_hand.parameters(), lr=config.learning_rate)
    with torch.no_grad():
        reference_logps = get_pair_log_probs(reference, dataset.batch())
    loss = dpo_loss(*get_pair_log_probs(by_hand, dataset.batch()), *reference_logps).losses.mean()
    loss.backward()
    optimizer.step()
    for ours, expected in zip(policy.parameters(), by_hand.parameters(), strict=True):
        assert torch.allclose(ours, expected, atol=1e-9)


def test_the_loop_is_the_step_of_chapter_10_repeated(dataset):
    config = dataclasses.replace(CONFIG, max_grad_norm=math.inf, beta=0.7)
    _, history = run(dataset, config=config)
    policy, reference = new_policy(), make_reference(new_policy())
    optimizer = torch.optim.Adam(policy.parameters(), lr=config.learning_rate)
    for row in history.steps:
        batch = dataset.batch(dataset.pairs_of_step(row["step"], config.batch_size, config.seed))
        loss, accuracy = dpo_training_step(policy, reference, optimizer, batch, config.beta)
        assert row["loss"] == pytest.approx(loss, rel=1e-9)
        assert row["reward_accuracy"] == accuracy


def test_schedule_and_clipping_reach_every_parameter(dataset):
    config = dataclasses.replace(
        CONFIG, warmup_steps=2, schedule="cosine", max_grad_norm=0.05, learning_rate=0.01
    )
    policy, history = run(dataset, config=config)
    by_hand, reference = new_policy(), make_reference(new_policy())
    optimizer = torch.optim.Adam(by_hand.parameters())
    for row in history.steps:
        batch = dataset.batch(dataset.pairs_of_step(row["step"], config.batch_size, config.seed))
        with torch.no_grad():
            known = get_pair_log_probs(reference, batch)
        losses = dpo_loss(*get_pair_log_probs(by_hand, batch), *known, config.beta).losses
        optimizer.zero_grad()
        losses.mean().backward()
        norm = nn.utils.clip_grad_norm_(by_hand.parameters(), 0.05)
        optimizer.param_groups[0]["lr"] = config.learning_rate_at(row["step"])
        optimizer.step()
        assert row["grad_norm"] == pytest.approx(norm.item(), rel=1e-6)
        assert norm > 0.05
        assert row["learning_rate"] == optimizer.param_groups[0]["lr"]
    assert {p.ndim for p in policy.parameters()} == {1, 2}
    for (name, ours), expected in zip(policy.named_parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-7, msg=name)


def test_packed_and_padded_runs_agree(dataset):
    (one, packed), (two, padded) = (
        run(dataset, config=dataclasses.replace(CONFIG, steps=12, packed=flag))
        for flag in (True, False)
    )
    for row, expected in zip(packed.steps, padded.steps, strict=True):
        assert row == pytest.approx(expected, rel=1e-7, abs=1e-9)
    assert packed.steps != padded.steps  # they are two computations
    for ours, expected in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.allclose(ours, expected, atol=1e-7)


def test_bfloat16_moves_the_loss_a_little_and_resumes(dataset, tmp_path):
    policy = new_policy().float()
    config = dataclasses.replace(CONFIG, dtype="bfloat16", force_dtype=True)
    rough = train_dpo(policy, None, dataset, config, progress=False)
    exact = train_dpo(new_policy().float(), None, dataset, CONFIG, progress=False)
    losses = list(zip(rough.column("loss"), exact.column("loss"), strict=True))
    assert max(abs(a - b) for a, b in losses) < 5e-3
    assert rough.steps != exact.steps
    assert all(p.dtype == torch.float32 for p in policy.parameters())


def test_weight_decay_shrinks_matrices_only(dataset):
    # The rate is so small that Adam itself moves nothing by more than 1e-9.
    config = dataclasses.replace(CONFIG, steps=1, learning_rate=1e-9, weight_decay=1e8)
    policy, _ = run(dataset, config=config)
    for after, before in zip(policy.parameters(), new_policy().parameters(), strict=True):
        kept = 0.9 if before.ndim == 2 else 1.0
        assert torch.allclose(after, kept * before, rtol=1e-7, atol=1e-8)


@coupled
def crowd_loss(chosen, rejected, reference_chosen, reference_rejected, beta):
    """A loss that compares every pair with its batch."""
    up, down = beta * (chosen - reference_chosen), beta * (rejected - reference_rejected)
    z = up - down
    return PreferenceLoss(nn.functional.softplus(0.5 * z.mean() - z), up.detach(), down.detach())


@coupled
def large_crowd_loss(*logps):
    """The same from four pairs on; fewer do not show that it is coupled."""
    return crowd_loss(*logps) if len(logps[0]) > 3 else dpo_loss(*logps)


@pytest.mark.parametrize(
    ("loss", "parts"),
    [
        (dpo_loss, 2),
        (dpo_loss, 3),
        (crowd_loss, 5),
        (crowd_loss, 3),
        (large_crowd_loss, 2),
        (functools.partial(large_crowd_loss), 5),
        ("kto", 2),
        ("simpo", 4),
    ],
)
def test_accumulated_parts_equal_the_whole_batch(dataset, loss, parts):
    (one, whole), (two, split) = (
        run(dataset, config=dataclasses.replace(CONFIG, accumulate=n), loss=loss)
        for n in (1, parts)
    )
    for row, expected in zip(split.steps, whole.steps, strict=True):
        assert row == pytest.approx(expected, rel=1e-8, abs=1e-10)
    for ours, expected in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.allclose(ours, expected, atol=1e-8)


def test_without_trainable_parameters_nothing_starts(dataset):
    with pytest.raises(ValueError, match="policy has no parameter that requires gradients"):
        run(dataset, make_reference(new_policy()))


def test_no_reference_means_the_policy_as_it_starts(dataset, tmp_path):
    one, first = run(dataset)
    two, file = new_policy(), tmp_path / "run.pt"
    second = train_dpo(two, None, dataset, CONFIG, progress=False)
    assert fingerprint(one) == fingerprint(two)
    assert first.steps == second.steps
    policy = new_policy()
    options = {"checkpoint": file, "progress": False}
    with pytest.raises(Stopped):
        train_dpo(policy, None, dataset, CONFIG, evaluate=evaluate_until(3), **options)
    # The interrupted policy has moved: the values of its start come from the checkpoint.
    resumed = train_dpo(policy, None, dataset, CONFIG, **options)
    assert fingerprint(policy) == fingerprint(one)
    assert resumed.steps == first.steps


def test_every_update_is_reported_as_it_is_made(dataset):
    rows = []
    _, history = run(dataset, on_step=lambda row: rows.append(dict(row)))
    assert rows == history.steps


def test_a_loss_by_name(dataset):
    _, by_function = run(dataset)
    _, by_name = run(dataset, loss="dpo")
    assert by_name.steps == by_function.steps
    with pytest.raises(ValueError, match=r"loss must be a function or one of \['dpo'.*got 'dpa'"):
        run(dataset, loss="dpa")


def test_a_loss_is_asked_for_every_part_and_for_the_row_and_never_tried_out(dataset):
    sizes = []

    def counting(*logps):
        sizes.append(len(logps[0]))
        return dpo_loss(*logps)

    run(dataset, config=dataclasses.replace(CONFIG, steps=2, accumulate=2), loss=counting)
    assert sizes == [3, 2, 5] * 2


@pytest.mark.parametrize("parts", [1, 2])
def test_an_update_waits_for_the_device_once(dataset, monkeypatch, parts):
    forward = PairLogProbs.forward

    def uncounted(self, rows):  # it checks ids on the CPU, before they go to the device
        with looks.paused():
            return forward(self, rows)

    config = dataclasses.replace(CONFIG, steps=4, accumulate=parts)
    monkeypatch.setattr(PairLogProbs, "forward", uncounted)
    numbers = []
    with looks_at_values() as looks:
        run(dataset, config=config, on_step=lambda row: numbers.append(looks.number))
    assert [b - a for a, b in itertools.pairwise(numbers)] == [1] * 3


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_gets_its_log_probs_and_lengths(dataset, name):
    loss = functools.partial(LOSSES[name], **FACTS[name].needs) if name != "kto" else name
    policy, reference = new_policy(), make_reference(new_policy())
    reference.final_norm.weight.data *= 1.3
    one_step = dataclasses.replace(CONFIG, steps=1)
    pairs = dataset.pairs_of_step(0, CONFIG.batch_size, CONFIG.seed)
    batch, extra = dataset.batch(pairs), {}
    if takes_lengths(LOSSES[name]):
        for side in ("chosen", "rejected"):  # EOS counts
            extra[f"{side}_lengths"] = torch.tensor([len(dataset[int(i)][side]) for i in pairs])
    with torch.no_grad():
        logps = [get_pair_log_probs(model, batch) for model in (policy, reference)]
    expected = as_loss_function(loss)(*logps[0], *logps[1], CONFIG.beta, **extra)
    history = train_dpo(policy, reference, dataset, one_step, loss=loss, progress=False)
    assert history.steps[0]["loss"] == pytest.approx(expected.losses.mean().item(), rel=1e-9)
    margin = (expected.chosen_rewards - expected.rejected_rewards).mean().item()
    assert history.steps[0]["margin"] == pytest.approx(margin, rel=1e-9)


def test_every_pair_is_used_once_before_any_is_used_again(dataset):
    used = [
        i
        for step in range(12)
        for i in dataset.pairs_of_step(step, CONFIG.batch_size, CONFIG.seed).tolist()
    ]
    epochs = [used[k : k + 12] for k in range(0, 60, 12)]
    assert all(sorted(epoch) == list(range(12)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_same_seed_same_bits_other_seed_other_order(dataset):
    (one, first), (two, second) = run(dataset), run(dataset)
    _, third = run(dataset, config=dataclasses.replace(CONFIG, seed=1))
    assert fingerprint(one) == fingerprint(two)
    assert first.steps == second.steps
    assert first.steps != third.steps


def test_a_way_to_compute_log_probs_that_is_there_already_is_used(dataset):
    policy = new_policy()
    log_probs, calls = PairLogProbs(policy), []
    log_probs.register_forward_hook(lambda *_: calls.append(None))
    _, history = run(dataset, policy, log_probs=log_probs)
    _, expected = run(dataset)
    assert len(calls) == 1 + CONFIG.steps  # against the reference, then once an update
    assert history.steps == expected.steps


def test_reference_is_read_only_once(dataset):
    calls = []
    reference = make_reference(new_policy())
    reference.register_forward_hook(lambda *_: calls.append(None))
    config = dataclasses.replace(CONFIG, packed=False)
    train_dpo(new_policy(), reference, dataset, config, progress=False)
    assert len(calls) == 2  # all twelve pairs at once: chosen, then rejected


def test_cached_values_are_those_of_any_batch_size(dataset):
    reference = make_reference(new_policy())
    whole = cache_reference_log_probs(reference, dataset)
    for options in ({"batch_size": 5}, {"packed": True}, {"batch_size": 7, "packed": True}):
        again = cache_reference_log_probs(reference, dataset, **options)
        assert all(torch.allclose(a, b, atol=1e-11) for a, b in zip(whole, again, strict=True))
    assert not whole[0].requires_grad


def test_evaluations_come_before_every_second_update_and_at_the_end(dataset):
    _, history = run(dataset, evaluate=lambda policy: {"entropy": 1.0})
    assert history.column("entropy") == [1.0] * 4
    assert [row["step"] for row in history.evaluations] == [0, 2, 4, 6]
    with pytest.raises(ValueError, match=r"no column 'lost'.*'loss'"):
        history.column("lost")


def test_dropout_is_off_while_training_and_the_mode_is_given_back(dataset):
    policy = new_policy(dropout=0.5).train()
    modes = []
    history = train_dpo(
        policy,
        make_reference(policy),
        dataset,
        CONFIG,
        evaluate=lambda p: modes.append(p.training) or {},
        progress=False,
    )
    assert history.steps[0]["loss"] == pytest.approx(math.log(2), abs=1e-12)
    assert modes == [False] * 4
    assert policy.training


def test_a_reference_with_dropout_is_found_at_the_start(dataset):
    policy = new_policy(dropout=0.5)
    reference = make_reference(policy).train()
    config = dataclasses.replace(CONFIG, packed=False)  # packing would speak up first
    with pytest.raises(ValueError, match="would not be log 2: is dropout on"):
        train_dpo(policy, reference, dataset, config, progress=False)


def test_divergence_stops_with_the_update_named(dataset):
    policy = new_policy()

    def poison(p):
        if poison.armed:
            nn.init.constant_(p.final_norm.weight, math.nan)
        poison.armed = True
        return {}

    poison.armed = False
    with pytest.raises(FloatingPointError, match="probability is nan at update 2, which was not"):
        run(dataset, policy, evaluate=poison)


@pytest.mark.parametrize(("slope", "said"), [(1e300, "inf"), (math.nan, "nan")])
def test_a_gradient_that_is_not_finite_stops_the_update_though_the_loss_is(dataset, slope, said):
    class Steep(torch.autograd.Function):
        """The value as it is, with another derivative."""

        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, given):
            return given * slope

    def steep_loss(chosen, *others):
        return dpo_loss(Steep.apply(chosen), *others)

    policy = new_policy()
    with pytest.raises(FloatingPointError, match=f"^the gradient is {said} at update 0, which was"):
        run(dataset, policy, loss=steep_loss)
    assert fingerprint(policy) == fingerprint(new_policy())


def test_what_a_loss_refuses_stops_the_update_that_saw_it(dataset):
    def wrong(chosen, rejected, *others):
        return dpo_loss(chosen + 1000, rejected, *others)

    policy = new_policy()
    with pytest.raises(ValueError, match="policy_chosen_logps must be log-probabilities"):
        run(dataset, policy, loss=wrong)
    assert fingerprint(policy) == fingerprint(new_policy())


def test_policy_as_its_own_reference_is_refused(dataset):
    policy = new_policy()
    with pytest.raises(ValueError, match="frozen copy of policy"):
        train_dpo(policy, policy, dataset, CONFIG, progress=False)


def test_clipping_bounds_the_gradient(dataset):
    _, free = run(dataset, config=dataclasses.replace(CONFIG, steps=2, max_grad_norm=math.inf))
    _, clipped = run(dataset, config=dataclasses.replace(CONFIG, steps=2, max_grad_norm=1e-4))
    assert free.steps[0]["grad_norm"] == clipped.steps[0]["grad_norm"] > 1e-4
    assert free.steps[1]["loss"] != clipped.steps[1]["loss"]


PAGE_FAULTS = """
import resource, torch
from dpo_lib import DPOConfig, train_dpo
from dpo_lib.data import PreferenceDataset
from dpo_lib.models import load_sft
from dpo_lib.world import label_by_reward, load_pairs, world_tokenizer
dataset = PreferenceDataset(label_by_reward(load_pairs()[:8], 0), world_tokenizer())
config = DPOConfig(steps=1, batch_size=8)
train_dpo(load_sft(), None, dataset, config, progress=False)
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        pieces = [torch.ones(2_000_000) for _ in range(12)]
        del pieces
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a promise about glibc only")
def test_freed_memory_is_kept_for_the_next_update():
    command = [sys.executable, "-c", PAGE_FAULTS]
    faults = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert faults < 1000  # without: 100,000


@pytest.mark.parametrize("kept", [True, False])
def test_memory_is_kept_only_if_the_config_says_so(monkeypatch, dataset, kept):
    asked = []
    monkeypatch.setattr("dpo_lib.training.loop.keep_freed_memory", lambda: asked.append(1))
    run(dataset, config=dataclasses.replace(CONFIG, steps=1, keep_memory=kept))
    assert len(asked) == kept
