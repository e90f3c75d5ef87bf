"""The reference model: a frozen copy, and each of its invariants violated once."""

import pytest
import torch
from torch import nn

from dpo_lib import assert_reference_invariants, fingerprint, make_reference


def small_policy():
    torch.manual_seed(0)
    layers = nn.Linear(3, 4), nn.Dropout(0.5), nn.BatchNorm1d(4), nn.Linear(4, 2)
    return nn.Sequential(*layers).train()


def test_make_reference_copies_and_freezes():
    policy = small_policy()
    policy(torch.ones(2, 3)).sum().backward()
    reference = make_reference(policy)
    assert fingerprint(reference) == fingerprint(policy)
    assert not any(module.training for module in reference.modules())
    for ours, theirs in zip(reference.parameters(), policy.parameters(), strict=True):
        assert not ours.requires_grad
        assert ours.grad is None
        assert ours.data_ptr() != theirs.data_ptr()


def test_make_reference_leaves_the_policy_alone():
    policy = small_policy()
    policy(torch.ones(2, 3)).sum().backward()
    gradients = [p.grad.clone() for p in policy.parameters()]
    make_reference(policy)
    assert all(module.training for module in policy.modules())
    assert all(p.requires_grad for p in policy.parameters())
    assert all(torch.equal(p.grad, g) for p, g in zip(policy.parameters(), gradients, strict=True))


def test_the_reference_answers_the_same_each_time_and_stays_when_the_policy_moves():
    policy, x = small_policy(), torch.ones(2, 3)
    reference = make_reference(policy)
    before = reference(x)
    with torch.no_grad():
        for tensor in (*policy.parameters(), *policy.buffers()):
            tensor.add_(1)
    assert torch.equal(reference(x), before)


def test_only_a_module_can_be_copied():
    with pytest.raises(ValueError, match=r"policy must be an nn\.Module, got function"):
        make_reference(lambda tokens: tokens)


# --- invariants ----------------------------------------------------------------------------------


def test_invariants_hold_for_a_fresh_reference():
    policy = small_policy()
    reference = make_reference(policy)
    optimizer = torch.optim.SGD(policy.parameters(), lr=0.1)
    assert_reference_invariants(
        policy, reference, optimizer=optimizer, start=fingerprint(reference), at_start=True
    )


def test_a_policy_in_training_is_no_violation():
    policy = small_policy()
    reference = make_reference(policy)
    with torch.no_grad():
        policy[0].bias += 1
    assert_reference_invariants(policy, reference)


def train_mode(policy, reference, options):
    reference.train()


def one_module_in_train_mode(policy, reference, options):
    reference[1].train()


def wants_gradients(policy, reference, options):
    reference[3].bias.requires_grad_(True)


def holds_a_gradient(policy, reference, options):
    reference[3].weight.grad = torch.zeros(2, 4)


def shares_memory(policy, reference, options):
    reference[0].weight.data = policy[0].weight.data


def shares_memory_through_a_view(policy, reference, options):
    reference[0].bias.data = policy[0].weight.data.view(-1)[4:8]


def in_the_optimizer(policy, reference, options):
    parameters = [*policy.parameters(), reference[3].bias]
    options["optimizer"] = torch.optim.SGD(parameters, lr=0.1)


def changed(policy, reference, options):
    options["start"] = fingerprint(reference)
    reference[0].bias.data[0] += 1


def a_buffer_changed(policy, reference, options):
    options["start"] = fingerprint(reference)
    reference[2].running_mean[0] += 1


def different_start(policy, reference, options):
    options["at_start"] = True
    policy[0].bias.data[0] += 1


@pytest.mark.parametrize(
    ("violate", "message"),
    [
        (train_mode, "^the reference is in training mode"),
        (one_module_in_train_mode, "reference module 1 is in training mode"),
        (wants_gradients, "reference parameter 3.bias receives gradients"),
        (holds_a_gradient, "reference parameter 3.weight receives gradients"),
        (shares_memory, "reference parameter 0.weight shares its memory"),
        (shares_memory_through_a_view, "reference parameter 0.bias shares its memory"),
        (in_the_optimizer, "reference parameter 3.bias is in the optimizer"),
        (changed, "^the reference has changed .* taken$"),
        (a_buffer_changed, "the reference has changed"),
        (different_start, "^the policy does not start .* of the reference$"),
    ],
)
def test_each_violation_is_named(violate, message):
    policy, options = small_policy(), {}
    reference = make_reference(policy)
    violate(policy, reference, options)
    with pytest.raises(AssertionError, match=message):
        assert_reference_invariants(policy, reference, **options)


# --- fingerprints --------------------------------------------------------------------------------


class Holder(nn.Module):
    def __init__(self, **buffers):
        super().__init__()
        for name, tensor in buffers.items():
            self.register_buffer(name, tensor)


def test_a_fingerprint_sees_names_shapes_types_and_every_bit():
    base = torch.tensor([[0.0, 1.0], [2.0, 3.0]])
    negative_zero = base.clone()
    negative_zero[0, 0] = -0.0
    holders = [
        Holder(a=base),
        Holder(b=base),
        Holder(a=base.view(4)),
        Holder(a=base.view(torch.int32)),
        Holder(a=negative_zero),
        Holder(a=base.T),
        Holder(a=base, b=torch.empty(0)),
    ]
    prints = [fingerprint(holder) for holder in holders]
    assert len(set(prints)) == len(prints)
    assert all(len(text) == 64 for text in prints)
    assert fingerprint(Holder(a=base.T)) == fingerprint(Holder(a=base.T.contiguous()))


def test_a_fingerprint_of_some_names_sees_those_alone():
    before = {"a": torch.zeros(2), "b": torch.zeros(2), "c": torch.zeros(2)}
    some = {"b", "c"}
    for name in before:
        after = before | {name: torch.ones(2)}
        same = fingerprint(Holder(**after), some) == fingerprint(Holder(**before), some)
        assert same == (name == "a")


def test_a_fingerprint_of_every_kind_of_tensor():
    tensors = {
        "bf16": torch.ones(3, dtype=torch.bfloat16),
        "flags": torch.tensor([True, False]),
        "scalar": torch.tensor(5),
        "empty": torch.empty(0, 3),
    }
    assert fingerprint(Holder(**tensors)) == fingerprint(Holder(**tensors))
