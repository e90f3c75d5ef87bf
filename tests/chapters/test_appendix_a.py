"""Appendix A: its seven lines for any world, the ends of its roads, and what its checks notice."""

from pathlib import Path

import nbformat
import pytest
import torch

from dpo_lib import closed_form

NOTEBOOK = Path(__file__).resolve().parents[2] / "book" / "appendices" / "a_closed_form.ipynb"
BETAS = [0.05, 0.1, 1.0, 7.0, 1e3]


@pytest.fixture(scope="module")
def cells():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture
def run(cells):
    """Run the cells that hold one of the marks, with texts replaced, and return their names."""
    before = torch.get_default_dtype()

    def run(marks, changes=()):
        names = {}
        for mark in ["import matplotlib", "names = [", *marks]:
            (cell,) = [cell for cell in cells if mark in cell]
            for old, new in changes:
                if mark == marks[0]:
                    assert cell.count(old) == 1
                    cell = cell.replace(old, new)
            exec(compile(cell, mark, "exec"), names)
        return names

    yield run
    torch.set_default_dtype(before)


def worlds():
    """Policies, references and rewards of 2, 9 and 200 responses."""
    generator = torch.Generator().manual_seed(0)
    for k in (2, 9, 200):
        draw = 3 * torch.randn(2, k, generator=generator, dtype=torch.float64)
        policy, reference = draw.log_softmax(dim=1)
        yield policy, reference, torch.randn(k, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("beta", BETAS)
def test_seven_lines_are_equal_in_any_world(run, beta):
    seven_lines = run(["def seven_lines"])["seven_lines"]
    for policy, reference, reward in worlds():
        best = closed_form.optimal_policy(reference, reward, beta)
        for some in (policy, reference, best):
            values = torch.stack(seven_lines(some, reference, reward, beta))
            expected = closed_form.rlhf_objective(some, reference, reward, beta)
            assert values.tolist() == pytest.approx([expected.item()] * 7, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(
    ("old", "new", "first_wrong"),
    [
        ("log() * beta\n", "log()\n", 2),
        ("tilted = ref * (r / beta).exp()", "tilted = ref * (r * beta).exp()", 3),
        ("z * (tilted / z)", "tilted / z", 4),
        ("best = tilted / z", "best = tilted", 5),
    ],
)
def test_a_wrong_step_shows_where_it_is_made(run, old, new, first_wrong):
    seven_lines = run(["def seven_lines"], [(old, new)])["seven_lines"]
    policy, reference, reward = next(worlds())
    try:
        values = seven_lines(policy, reference, reward, 0.5)
    except ValueError:  # the last line asks for a policy that sums to one
        assert first_wrong == 5
        return
    equal = [abs((value - values[0]).item()) < 1e-9 for value in values]
    assert equal[: first_wrong + 1] == [True] * first_wrong + [False]


def test_the_figure_of_the_roads(run):
    first = ["def seven_lines", "generator = torch.Generator().manual_seed(2)", "beta = 0.5\nbest"]
    then = ["def train(", "def pair_loss", "chance = ", "def rlhf", "def ppo", "paths = {"]
    names = run([*first, "refs = torch.stack", *then])
    assert names["paths"]["PPO"].shape == (151, 10, 3)
    for path in names["paths"].values():
        assert torch.allclose(path[0], names["reference"].expand_as(path[0]))
    ends = {name: tv[-1].max().item() for name, tv in names["distance"].items()}
    assert ends["DPO"] < 1e-7
    assert ends["PPO"] < 1e-5
    assert ends["PPO"] < ends["RLHF"] < 1e-3
    # On their way RLHF and PPO raise the likely jingle, and more than DPO does.
    jingle = {name: path.exp()[..., 1] for name, path in names["paths"].items()}
    assert jingle["RLHF"].max() > 0.7
    assert (jingle["PPO"].amax(dim=0) > 0.7).all()
    assert jingle["DPO"].max() < 0.65
