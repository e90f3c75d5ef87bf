"""Tests of the page beside this file: ``python -m pytest test_dpo_from_scratch.py``."""

# ruff: noqa: D103

import math

import dpo_from_scratch as page
import pytest
import torch

torch.set_num_threads(1)
TRAINING, HELD_OUT = page.make_pairs(seed=0)


@pytest.fixture(scope="module")
def model():
    return page.TinyGPT(seed=0)


# --- 1. Preferences -------------------------------------------------------------------


def test_no_prompt_is_on_both_sides():
    for seed in range(4):
        training, held_out = page.make_pairs(seed)
        assert len(training) == 18
        assert len(held_out) == 6
        assert not {x for x, *_ in training} & {x for x, *_ in held_out}


def test_length_says_nothing_about_quality():
    for pairs in (TRAINING, HELD_OUT):
        longer = sum(len(chosen) > len(rejected) for _, chosen, rejected in pairs)
        assert longer == len(pairs) / 2


# --- 2. Bytes -------------------------------------------------------------------------


def test_the_mask_covers_the_response_and_its_end():
    tokens, mask = page.encode("Hi?", "Ja.")
    assert tokens == [page.INST, *b"Hi?", page.RESP, *b"Ja.", page.EOS]
    assert [t for t, m in zip(tokens, mask, strict=True) if m] == [*b"Ja.", page.EOS]


# --- 3. The model ---------------------------------------------------------------------


def test_no_position_sees_the_future(model):
    tokens, _ = page.make_batch([("Hi?", "Yes.")])
    changed = tokens.clone()
    changed[0, 6] = ord("N")
    before, after = model(tokens), model(changed)
    torch.testing.assert_close(before[0, :6], after[0, :6])
    assert not torch.allclose(before[0, 6], after[0, 6])


# --- 4. Log-probabilities and the loss ------------------------------------------------


def test_a_batch_gives_the_same_as_one_by_one(model):
    texts = [("Hi?", "Yes."), ("Capital of Peru?", "The capital of Peru is Lima.")]
    together = page.sequence_log_probs(model, *page.make_batch(texts))
    alone = [page.sequence_log_probs(model, *page.make_batch([x])) for x in texts]
    torch.testing.assert_close(together, torch.cat(alone))


def test_the_sum_by_hand(model):
    tokens, _ = page.encode("Hi?", "Yes.")
    table = model(torch.tensor([tokens]))[0].log_softmax(dim=-1)
    start = tokens.index(page.RESP) + 1
    by_hand = sum(table[t - 1, tokens[t]] for t in range(start, len(tokens)))
    batch = page.make_batch([("Hi?", "Yes.")])
    torch.testing.assert_close(page.sequence_log_probs(model, *batch)[0], by_hand)


def test_the_loss_by_hand():
    numbers = torch.tensor([-10.0, -15.0, -12.0, -14.0], dtype=torch.float64)
    assert page.dpo_loss(*numbers, 0.1).item() == pytest.approx(0.554, abs=5e-4)


def test_the_loss_starts_at_log_2_and_pulls_the_right_way():
    policy = torch.tensor([-10.0, -15.0], dtype=torch.float64, requires_grad=True)
    loss = page.dpo_loss(*policy, *policy.detach(), 0.1)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2))
    assert policy.grad.tolist() == pytest.approx([-0.05, 0.05])  # -beta / 2, beta / 2


# --- 5. Training ----------------------------------------------------------------------


def test_the_reference_is_a_frozen_copy():
    policy = page.TinyGPT(seed=0)
    reference = page.make_reference(policy)
    assert page.evaluate_margins(policy, reference, TRAINING).abs().max() == 0
    start = [parameter.clone() for parameter in reference.parameters()]
    page.train(policy, reference, TRAINING, HELD_OUT, steps=2, report=lambda *_: None)
    for old, new in zip(start, reference.parameters(), strict=True):
        assert torch.equal(old, new)
        assert not new.requires_grad
        assert new.grad is None
    assert page.evaluate_margins(policy, reference, TRAINING).mean() > 0


# --- 6. The whole: about a minute -----------------------------------------------------


def flipped(*logps):
    return -page.dpo_loss(*logps)


def swapped(chosen, rejected, ref_chosen, ref_rejected, beta):
    return page.dpo_loss(rejected, chosen, ref_rejected, ref_chosen, beta)


def without_reference(chosen, rejected, ref_chosen, ref_rejected, beta):
    return page.dpo_loss(chosen, rejected, 0 * ref_chosen, 0 * ref_rejected, beta)


def indifferent(chosen, rejected, ref_chosen, ref_rejected, beta):
    return page.dpo_loss(chosen, rejected, ref_chosen, ref_rejected, 1e-6 * beta)


@pytest.fixture(scope="module")
def warmed_up():
    """Weights after the warm-up of seed 0, so that it is done once."""
    model = page.TinyGPT(seed=0)
    texts = [(x, y) for x, *both in TRAINING + HELD_OUT for y in both]
    page.warm_up(model, texts, seed=0)
    return model.state_dict()


@pytest.mark.parametrize(
    ("loss", "code"),
    [(page.dpo_loss, 0), (flipped, 1), (swapped, 1), (without_reference, 1), (indifferent, 1)],
)
def test_the_demo_tells_a_sound_loss_from_a_broken_one(monkeypatch, warmed_up, loss, code):
    monkeypatch.setattr(page, "warm_up", lambda model, *_: model.load_state_dict(warmed_up))
    assert page.run_demo(loss=loss, report=lambda *_: None) == code


def test_the_demo_tells_a_reference_that_moves(monkeypatch):
    def train(policy, reference, *_):
        next(reference.parameters()).data.add_(1.0)

    said = []
    monkeypatch.setattr(page, "warm_up", lambda *_: None)
    monkeypatch.setattr(page, "train", train)
    monkeypatch.setattr(page, "problems", lambda _: [])
    assert page.run_demo(report=said.append) == 1
    assert said[-1] == "FAILED: the reference has changed"
