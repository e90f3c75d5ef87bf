"""One DPO training step, against arithmetic by hand; nothing happens upon an error."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from dpo_lib import (
    dpo_loss,
    dpo_training_step,
    fingerprint,
    get_pair_log_probs,
    get_sequence_log_probs,
    make_reference,
)
from tests.helpers import PrefixModel, log_probs_by_hand, pad


class Unigram(nn.Module):
    """The same distribution at every position: its gradients are written down in one line."""

    def __init__(self, logits):
        super().__init__()
        self.theta = nn.Parameter(torch.tensor(logits, dtype=torch.float64))

    def forward(self, tokens):
        return self.theta.expand(*tokens.shape, -1)


def sgd(model, lr=0.5):
    return torch.optim.SGD(model.parameters(), lr=lr)


def column(*ids):
    return torch.tensor(ids).unsqueeze(1)


PAIRS = {"prompt": column(0, 3), "chosen": column(1, 2), "rejected": column(2, 0)}


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def test_two_steps_by_hand():
    """For one token, log pi(w) - log pi(l) = theta[w] - theta[l]: the normalizer cancels."""
    policy = Unigram([0.5, -0.2, 0.1, 0.3])
    reference, optimizer = Unigram([0.1, 0.4, -0.2, 0.0]), sgd(policy, lr=0.5)
    theta, ref, beta = [0.5, -0.2, 0.1, 0.3], [0.1, 0.4, -0.2, 0.0], 0.7
    for _ in range(2):
        loss, accuracy = dpo_training_step(policy, reference, optimizer, PAIRS, beta=beta)
        gradient, expected_loss, right = [0.0] * 4, 0.0, 0.0
        for w, r in ((1, 2), (2, 0)):
            z = beta * ((theta[w] - theta[r]) - (ref[w] - ref[r]))
            expected_loss += math.log(1 + math.exp(-z)) / 2
            right += (z > 0) / 2
            gradient[w] -= beta * sigmoid(-z) / 2
            gradient[r] += beta * sigmoid(-z) / 2
        assert loss == pytest.approx(expected_loss, rel=1e-12)
        assert accuracy == right
        theta = [t - 0.5 * g for t, g in zip(theta, gradient, strict=True)]
        assert policy.theta.tolist() == pytest.approx(theta, rel=1e-12)


def test_paris_and_lyon():
    rest = math.log(1 - math.exp(-10) - math.exp(-15))
    policy = Unigram([rest, -10.0, -15.0])
    rest = math.log(1 - math.exp(-12) - math.exp(-14))
    reference = Unigram([rest, -12.0, -14.0])
    batch = {"prompt": column(0), "chosen": column(1), "rejected": column(2)}
    loss, accuracy = dpo_training_step(policy, reference, sgd(policy), batch, beta=0.1)
    assert round(loss, 3) == 0.554
    assert accuracy == 1.0
    paris, lyon = (
        get_sequence_log_probs(policy, batch["prompt"], batch[side]).item()
        for side in ("chosen", "rejected")
    )
    assert paris > -10
    assert lyon < -15


def test_beta_is_a_tenth_unless_given():
    results = []
    for options in ({}, {"beta": 0.1}):
        policy = Unigram([0.5, -0.2, 0.1, 0.3])
        reference = Unigram([0.1, 0.4, -0.3, 0.0])
        results.append(dpo_training_step(policy, reference, sgd(policy), PAIRS, **options))
        results.append(policy.theta.tolist())
    assert results[:2] == results[2:]


PROMPTS = [[1, 2, 3], [2]]
CHOSEN, REJECTED = [[1, 3], [2, 1, 1, 3]], [[3, 3, 2], [1]]


def padded_batch(pad_id=0):
    prompt, chosen, prompt_mask, chosen_mask = pad(PROMPTS, CHOSEN, pad_id)
    _, rejected, _, rejected_mask = pad(PROMPTS, REJECTED, pad_id)
    return {
        "prompt": prompt,
        "chosen": chosen,
        "rejected": rejected,
        "prompt_mask": prompt_mask,
        "chosen_mask": chosen_mask,
        "rejected_mask": rejected_mask,
    }


@pytest.mark.parametrize("pad_id", [0, 3])
def test_a_step_on_a_padded_batch_equals_plain_autograd_one_by_one(pad_id):
    policy, reference, beta = PrefixModel(seed=1), PrefixModel(seed=2), 0.3
    twin = copy.deepcopy(policy)
    margins = []
    for prompt, chosen, rejected in zip(PROMPTS, CHOSEN, REJECTED, strict=True):
        (pc, pr), (rc, rr) = (
            [log_probs_by_hand(model, prompt, response).sum() for response in (chosen, rejected)]
            for model in (twin, reference)
        )
        margins.append(beta * ((pc - rc.detach()) - (pr - rr.detach())))
    expected = -F.logsigmoid(torch.stack(margins)).mean()
    expected.backward()

    batch = padded_batch(pad_id)
    loss, accuracy = dpo_training_step(policy, reference, sgd(policy, 0.1), batch, beta=beta)
    assert loss == pytest.approx(expected.item(), rel=1e-12)
    assert accuracy == sum(m.item() > 0 for m in margins) / 2
    for after, before in zip(policy.parameters(), twin.parameters(), strict=True):
        assert_close(after, before - 0.1 * before.grad, atol=1e-13, rtol=1e-12)


def test_the_first_step_starts_at_log_two_and_one_half():
    policy = PrefixModel()
    reference = make_reference(policy)
    start = fingerprint(reference)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=0.01)
    loss, accuracy = dpo_training_step(policy, reference, optimizer, padded_batch())
    assert loss == math.log(2)
    assert accuracy == 0.5
    assert type(loss) is type(accuracy) is float
    # The policy has moved, the reference has not; now the pairs are told apart.
    assert fingerprint(policy) != start
    assert fingerprint(reference) == start
    loss, accuracy = dpo_training_step(policy, reference, optimizer, padded_batch())
    assert loss < math.log(2)
    assert accuracy == 1.0


def test_gradients_left_over_from_before_do_not_count():
    clean, stale = PrefixModel(seed=1), PrefixModel(seed=1)
    for parameter in stale.parameters():
        parameter.grad = torch.ones_like(parameter)
    for policy in (clean, stale):
        dpo_training_step(policy, PrefixModel(seed=2), sgd(policy), padded_batch())
    assert fingerprint(clean) == fingerprint(stale)


def test_the_reference_is_called_without_gradients_even_if_not_frozen():
    policy, reference = PrefixModel(seed=1), PrefixModel(seed=2)
    modes = []

    def watched(tokens):
        modes.append(torch.is_grad_enabled())
        return reference(tokens)

    start = fingerprint(reference)
    dpo_training_step(policy, watched, sgd(policy), padded_batch())
    assert modes == [False, False]
    assert all(p.grad is None for p in reference.parameters())
    assert fingerprint(reference) == start


def test_a_copy_that_was_only_not_frozen_changes_nothing_as_chapter_7_says():
    def train(step, *, frozen, all_parameters=False):
        policy = PrefixModel(seed=3)
        reference = make_reference(policy).requires_grad_(not frozen)
        start, batch = fingerprint(reference), padded_batch()
        held = [*policy.parameters(), *(reference.parameters() if all_parameters else ())]
        optimizer = torch.optim.Adam(held, lr=0.01)
        for _ in range(20):
            step(policy, reference, optimizer, batch)
        return fingerprint(policy), fingerprint(reference) == start

    def without_no_grad(policy, reference, optimizer, batch):
        scores = *get_pair_log_probs(policy, batch), *get_pair_log_probs(reference, batch)
        optimizer.zero_grad()
        dpo_loss(*scores, 0.1).losses.mean().backward()
        optimizer.step()

    sound = train(dpo_training_step, frozen=True)
    assert sound[1]
    assert train(dpo_training_step, frozen=False) == sound
    assert train(dpo_training_step, frozen=False, all_parameters=True) == sound
    assert train(without_no_grad, frozen=False) == sound
    trapped, reference_stayed = train(without_no_grad, frozen=False, all_parameters=True)
    assert trapped != sound[0]
    assert not reference_stayed


def test_steps_lower_the_loss_and_raise_the_margin():
    policy = PrefixModel(seed=3)
    reference, optimizer = make_reference(policy), sgd(policy, 0.05)
    losses = [dpo_training_step(policy, reference, optimizer, padded_batch())[0] for _ in range(20)]
    assert losses == sorted(losses, reverse=True)


# --- errors --------------------------------------------------------------------------------------


def broken_reference():
    reference = PrefixModel(seed=2)
    reference.head.data[:] = math.nan
    return reference


@pytest.mark.parametrize(
    ("batch", "reference", "beta", "words"),
    [
        ({"chosen": None}, PrefixModel(), 0.1, ["batch", "chosen"]),
        (
            {"rejected": torch.ones(3, 2).long()},
            PrefixModel(),
            0.1,
            ["rejected", "(2, 3)", "(3, 2)"],
        ),
        ({"rejected": torch.ones(2, 0).long()}, PrefixModel(), 0.1, ["rejected", "empty"]),
        ({"rejected": torch.full((2, 3), 9)}, PrefixModel(), 0.1, ["rejected", "9"]),
        ({"chosen_mask": torch.zeros(2, 4)}, PrefixModel(), 0.1, ["chosen", "empty"]),
        ({}, PrefixModel(), 0.0, ["beta", "0.0"]),
        ({}, PrefixModel(), math.nan, ["beta", "nan"]),
        ({}, broken_reference(), 0.1, ["reference_chosen_logps", "nan"]),
        ({}, None, 0.1, ["ref_model", "policy_model"]),
    ],
)
def test_nothing_is_updated_upon_an_error(batch, reference, beta, words):
    policy = PrefixModel(seed=1)
    for parameter in policy.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=0.1)
    before = fingerprint(policy)
    changed = {k: v for k, v in {**padded_batch(), **batch}.items() if v is not None}
    with pytest.raises(ValueError, match=rf"\b{words[0]}\b") as error:
        dpo_training_step(policy, reference or policy, optimizer, changed, beta=beta)
    for word in words:
        assert word in str(error.value)
    assert fingerprint(policy) == before
    assert not optimizer.state
    assert all((p.grad == 1).all() for p in policy.parameters())
