"""The training loop: the numbers it reports, the order of the pairs, resuming, and its errors."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from dpo_lib import fingerprint, get_pair_log_probs, make_reference
from dpo_lib.data import PreferenceDataset, make_preferences
from dpo_lib.losses import dpo_loss
from dpo_lib.models import InstructionTokenizer, TinyGPT, TinyGPTConfig
from dpo_lib.reference import cache_reference_log_probs
from dpo_lib.training import DPOConfig, train_dpo

CONFIG = DPOConfig(steps=6, batch_size=5, learning_rate=1e-3, eval_every=2)


@pytest.fixture(scope="module")
def dataset():
    return PreferenceDataset(make_preferences(), InstructionTokenizer())


def new_policy(dropout: float = 0.0) -> TinyGPT:
    torch.manual_seed(0)
    config = TinyGPTConfig(260, context_length=128, width=16, heads=2, layers=1, dropout=dropout)
    return TinyGPT(config).double()


def run(dataset, policy=None, config=CONFIG, **options):
    policy = policy or new_policy()
    history = train_dpo(
        policy, make_reference(new_policy()), dataset, config, progress=False, **options
    )
    return policy, history


class Stopped(Exception):
    pass


def evaluate_until(last: int):
    """An evaluation that stops the run at its call number ``last``, as a killed process would."""
    calls = []

    def evaluate(policy):
        calls.append(None)
        if len(calls) == last:
            raise Stopped
        return {"calls": 1.5}

    return evaluate


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


def test_every_pair_is_used_once_before_any_is_used_again(dataset):
    seen = []
    original = dataset.batch

    def spy(indices=None):
        seen.append([int(i) for i in indices])
        return original(indices)

    dataset.batch = spy
    try:
        run(dataset, config=dataclasses.replace(CONFIG, steps=12))
    finally:
        del dataset.batch
    used = [i for batch in seen if len(batch) == CONFIG.batch_size for i in batch]
    epochs = [used[k : k + 12] for k in range(0, 60, 12)]
    assert all(sorted(epoch) == list(range(12)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_same_seed_same_bits_other_seed_other_order(dataset):
    (one, first), (two, second) = run(dataset), run(dataset)
    _, third = run(dataset, config=dataclasses.replace(CONFIG, seed=1))
    assert fingerprint(one) == fingerprint(two)
    assert first.steps == second.steps
    assert first.steps != third.steps


def test_reference_is_read_only_once(dataset):
    calls = []
    reference = make_reference(new_policy())
    reference.register_forward_hook(lambda *_: calls.append(None))
    train_dpo(new_policy(), reference, dataset, CONFIG, progress=False)
    assert len(calls) == 2  # all twelve pairs at once: chosen, then rejected


def test_cached_values_are_those_of_any_batch_size(dataset):
    reference = make_reference(new_policy())
    whole, parts = (cache_reference_log_probs(reference, dataset, size) for size in (64, 5))
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(whole, parts, strict=True))
    assert not whole[0].requires_grad


@pytest.mark.parametrize("stop_at", [1, 2, 3, 4])
def test_an_interrupted_run_ends_with_the_same_bits(dataset, tmp_path, stop_at):
    whole, history = run(dataset, evaluate=evaluate_until(0))
    file = tmp_path / "deep" / "run.pt"
    with pytest.raises(Stopped):
        run(dataset, evaluate=evaluate_until(stop_at), checkpoint=file)
    resumed, second = run(dataset, evaluate=evaluate_until(0), checkpoint=file)
    assert fingerprint(resumed) == fingerprint(whole)
    assert second.steps == history.steps
    assert second.evaluations == history.evaluations
    assert [p.name for p in file.parent.iterdir()] == ["run.pt"]


def test_a_checkpoint_of_another_run_is_refused(dataset, tmp_path):
    run(dataset, checkpoint=tmp_path / "run.pt")
    other = dataclasses.replace(CONFIG, seed=3)
    with pytest.raises(ValueError, match=r"of another run.*seed=0.*seed=3"):
        run(dataset, config=other, checkpoint=tmp_path / "run.pt")


def test_a_failed_write_leaves_the_old_checkpoint(dataset, tmp_path, monkeypatch):
    file = tmp_path / "run.pt"
    run(dataset, checkpoint=file)
    before = file.read_bytes()

    def broken_save(state, target):
        target.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", broken_save)
    with pytest.raises(OSError, match="disk full"):
        run(dataset, checkpoint=file)
    assert file.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["run.pt"]


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
    with pytest.raises(ValueError, match="would not be log 2: is dropout on"):
        train_dpo(policy, reference, dataset, CONFIG, progress=False)


def test_divergence_stops_with_the_update_named(dataset):
    policy = new_policy()

    def poison(p):
        if poison.armed:
            nn.init.constant_(p.final_norm.weight, math.nan)
        poison.armed = True
        return {}

    poison.armed = False
    with pytest.raises(FloatingPointError, match="nan at update 2, which was not made"):
        run(dataset, policy, evaluate=poison)


def test_policy_as_its_own_reference_is_refused(dataset):
    policy = new_policy()
    with pytest.raises(ValueError, match="frozen copy of policy"):
        train_dpo(policy, policy, dataset, CONFIG, progress=False)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]),
        ("cosine", [0.5, 1.0, 1.0, 0.853553, 0.5, 0.146447]),
    ],
)
def test_schedules(dataset, schedule, expected):
    config = dataclasses.replace(CONFIG, learning_rate=1.0, warmup_steps=2, schedule=schedule)
    rates = [config.learning_rate_at(step) for step in range(6)]
    assert rates == pytest.approx(expected, abs=1e-6)
    low = dataclasses.replace(config, learning_rate=1e-4)
    _, history = run(dataset, config=low)
    assert history.column("learning_rate") == pytest.approx([1e-4 * x for x in expected], abs=1e-9)


def test_clipping_bounds_the_gradient(dataset):
    _, free = run(dataset, config=dataclasses.replace(CONFIG, steps=2, max_grad_norm=math.inf))
    _, clipped = run(dataset, config=dataclasses.replace(CONFIG, steps=2, max_grad_norm=1e-4))
    assert free.steps[0]["grad_norm"] == clipped.steps[0]["grad_norm"] > 1e-4
    assert free.steps[1]["loss"] != clipped.steps[1]["loss"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"beta": 0.0}, "beta must be"),
        ({"learning_rate": -1.0}, "learning_rate must be"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"warmup_steps": -1}, "warmup_steps must be at least 0"),
        ({"eval_every": 0}, "eval_every must be at least 1"),
        ({"max_grad_norm": 0.0}, "max_grad_norm must be above 0"),
        ({"max_grad_norm": math.nan}, "max_grad_norm must be above 0"),
        ({"schedule": "step"}, "schedule must be one of .*'cosine'.*got 'step'"),
    ],
)
def test_bad_settings_are_named(setting, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **setting)


def test_the_history_draws_itself(dataset):
    _, history = run(dataset, evaluate=lambda policy: {"entropy": 1.0, "samples": ["Paris."]})
    figure = history.plot()
    drawn = [line.get_ydata().tolist() for ax in figure.axes for line in ax.get_lines()]
    columns = ["loss", "reward_accuracy", "margin", "chosen_logp", "rejected_logp", "entropy"]
    assert drawn == [history.column(name) for name in columns]
