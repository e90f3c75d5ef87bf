"""Chapter 3: what the solutions of its exercises say happens when a reader tries it."""

import json
from pathlib import Path

import pytest
import torch

from dpo_lib import fit_bradley_terry, preference_nll

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "03_negative_log_likelihood.ipynb"
NEEDED = ("verdicts = ", "def preference_engine(", "def train_shared_knob(")


@pytest.fixture(scope="module")
def chapter():
    """The chapter's own functions and data: the cells that define them, run here."""
    names = {"torch": torch, "preference_nll": preference_nll}
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    found = [source for source in sources if any(name in source for name in NEEDED)]
    assert len(found) == len(NEEDED)
    for source in found:
        exec(source, names)
    yield names
    torch.set_default_dtype(default)


def descend(loss_function, scores, steps, learning_rate=1.0):
    losses = []
    for _ in range(steps):
        scores = scores.detach().requires_grad_()
        loss = loss_function(scores)
        losses.append(loss.item())
        (gradient,) = torch.autograd.grad(loss, scores)
        scores = scores - learning_rate * gradient
    return losses, scores.detach()


def test_sum_for_mean_overshoots_and_jumps_between_two_states(chapter):
    winners, losers = chapter["winners"], chapter["losers"]

    def total(scores):
        return preference_nll(scores[winners], scores[losers]).sum()

    losses, scores = descend(total, torch.zeros(4), 300)
    assert losses[1] < losses[0]
    assert losses[6] > losses[5] > losses[4] > losses[3] > losses[2] > losses[1]
    _, after_one = descend(total, scores, 1)
    _, after_two = descend(total, scores, 2)
    assert (after_one - scores).abs().max() > 0.5
    torch.testing.assert_close(after_two, scores)

    _, tamed = descend(total, torch.zeros(4), 300, learning_rate=0.1)
    torch.testing.assert_close(tamed, fit_bradley_terry(winners, losers, 4), rtol=0, atol=1e-6)


def test_log_of_a_sigmoid_in_float32_poisons_the_scores_in_two_steps(chapter):
    winners, losers = chapter["winners"], chapter["losers"]
    start = torch.tensor([0.0, 0.0, 0.0, 200.0], dtype=torch.float32)

    def spelled_out(scores):
        return -torch.log(torch.sigmoid(scores[winners] - scores[losers])).mean()

    losses, after_one = descend(spelled_out, start, 1)
    assert losses[0] == float("inf")
    # D is item 3; A and C beat it.
    assert after_one.isnan().tolist() == [True, False, True, True]
    assert descend(spelled_out, start, 2)[1].isnan().all()

    _, recovered = descend(lambda s: chapter["preference_engine"](s, winners, losers), start, 3000)
    exact = fit_bradley_terry(winners, losers, n_items=4)
    torch.testing.assert_close(recovered.double() - recovered.mean(), exact, rtol=0, atol=1e-3)


def test_without_contradictions_the_scores_never_settle(chapter):
    kept = [verdict for verdict in chapter["verdicts"] if verdict[0] < verdict[2]]
    assert len(chapter["verdicts"]) - len(kept) == 3
    winners = torch.tensor(["ABCD".index(verdict[0]) for verdict in kept])
    losers = torch.tensor(["ABCD".index(verdict[2]) for verdict in kept])
    engine = chapter["preference_engine"]
    losses, scores = descend(lambda s: engine(s, winners, losers), torch.zeros(4), 3000)
    _, early = descend(lambda s: engine(s, winners, losers), torch.zeros(4), 300)
    assert losses[-1] < 0.1 * losses[299]
    assert scores[0] - scores[3] > early[0] - early[3] + 3
    with pytest.raises(ValueError, match="no finite scores exist"):
        fit_bradley_terry(winners, losers, n_items=4)


def steps_with_adam(loss_function):
    gap = torch.tensor(-8.0, requires_grad=True)
    optimizer = torch.optim.Adam([gap], lr=0.1)
    for step in range(1000):
        if torch.sigmoid(gap) > 0.9:
            return step
        optimizer.zero_grad()
        loss_function(gap).backward()
        optimizer.step()
    raise AssertionError("no recovery")


def test_adam_recovers_one_pair_in_half_the_steps_under_the_linear_loss(chapter):
    nll = steps_with_adam(lambda gap: preference_nll(gap, 0.0))
    linear = steps_with_adam(lambda gap: 1 - torch.sigmoid(gap))
    assert linear / nll == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_with_a_shared_knob_the_loss_decides_which_pairs_count(chapter, optimizer):
    train = chapter["train_shared_knob"]
    *wrong_three, undecided = train("nll", optimizer)
    assert min(wrong_three) > 0.5
    assert undecided < 0.01
    *wrong_three, undecided = train("linear", optimizer)
    assert max(wrong_three) < 0.01
    assert undecided > 0.95
