"""The demo: it succeeds with a sound loss and fails with each broken one; the page agrees."""

import ast
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from dpo_lib import demo, dpo_loss, make_preferences, make_reference, train_dpo
from dpo_lib.logprobs import get_pair_log_probs
from dpo_lib.losses import LOSSES, PreferenceLoss
from dpo_lib.models import InstructionTokenizer

CAPSTONE = Path(__file__).resolve().parents[2] / "dpo_lib" / "capstone"
SEED = 1


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def warmed_up():
    """Weights after the warm-up, which is done once for all tests."""
    model = demo.new_model(SEED)
    demo.warm_up(model, demo.split(SEED), SEED)
    return model.state_dict()


@pytest.fixture
def run(monkeypatch, warmed_up):
    """A shorter demo, with a margin to reach that is as much lower: exit code and report."""

    def load(model, datasets, seed):
        model.load_state_dict(warmed_up)

    def run(loss, steps=10):
        lines = []
        code = demo.run_demo(steps=steps, seed=SEED, loss=loss, write=lines.append)
        return code, "\n".join(lines)

    monkeypatch.setattr(demo, "warm_up", load)
    monkeypatch.setattr(demo, "LEAST_MARGIN", 0.1)
    return run


# --- the data ------------------------------------------------------------------------------------


def test_pairs_are_balanced_in_length_and_end_with_eos():
    for dataset in demo.split(0):
        longer = [len(r.chosen) > len(r.rejected) for r in dataset.records]
        assert longer == [False, True] * (len(dataset) // 2)
        for row in dataset.rows:
            for side in ("chosen", "rejected"):
                assert row[side].count(InstructionTokenizer.EOS) == 1
                assert row[side][-1] == InstructionTokenizer.EOS


@pytest.mark.parametrize("seed", range(4))
def test_held_out_prompts_are_new_but_their_kind_of_loser_is_not(seed):
    training, held_out = ({r.prompt for r in d.records} for d in demo.split(seed))
    prompts = [r.prompt for r in make_preferences()]
    assert training | held_out == set(prompts)
    assert not training & held_out
    assert len(held_out) == 3
    assert len({prompts.index(prompt) % 4 for prompt in held_out}) == 3


def test_the_model_does_not_touch_the_global_generator():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, second = demo.new_model(3), demo.new_model(3)
    assert torch.equal(torch.rand(3), expected)
    assert all(map(torch.equal, first.parameters(), second.parameters()))


# --- a sound loss --------------------------------------------------------------------------------


def test_the_default_demo_succeeds_as_a_command_would_run_it():
    lines = []
    assert demo.run_demo(write=lines.append) == 0
    assert lines[-1] == "The held-out margins grew."
    table = [line.split() for line in lines if line.lstrip()[:1].isdigit()]
    assert len(table) == demo.STEPS + 1
    assert table[0] == ["0", "0.6931", "0.000", "0.50", "0.000", "0.50"]
    losses = [float(row[1]) for row in table[:-1]]
    assert losses == sorted(losses, reverse=True)
    assert float(table[-1][3]) > 0.3


def test_the_short_demo_succeeds_too(run):
    code, report = run(dpo_loss)
    assert code == 0, report


def test_a_loss_may_be_named(run):
    code, report = run("cdpo")
    assert code == 0, report
    assert "cdpo: 18 pairs, 6 held out" in report


def test_too_few_updates_are_no_success(run):
    code, report = run(dpo_loss, steps=1)
    assert code == 1
    assert "below 0.1 nats" in report


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="got 'best'"):
        demo.run_demo(loss="best")
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        demo.run_demo(steps=0)


# --- broken losses -------------------------------------------------------------------------------


def rewards(pc, pr, rc, rr, beta):
    return beta * (pc - rc), beta * (pr - rr)


def from_margin(function):
    """A loss that is a wrong function of the right margin."""

    def loss(*arguments):
        chosen, rejected = rewards(*arguments)
        return PreferenceLoss(function(chosen - rejected), chosen.detach(), rejected.detach())

    return loss


def from_inputs(change):
    """The right loss of wrong inputs."""
    return lambda pc, pr, rc, rr, beta: dpo_loss(*change(pc, pr, rc, rr, beta))


MARGIN, VALUE, GRADIENT = "held-out margin", "loss is not", "gradient is not"
BROKEN = {  # what is wrong: the loss, and what the demo must say
    "sign flipped": (from_margin(F.logsigmoid), MARGIN),
    "log sigmoid of minus the margin": (from_margin(lambda z: F.softplus(z)), MARGIN),
    "constant": (from_margin(lambda z: 0 * z + 0.7), MARGIN),
    "detached": (from_margin(lambda z: F.softplus(-z.detach())), "RuntimeError"),
    "not a number": (from_margin(lambda z: z / 0 - z / 0), "FloatingPointError"),
    "probability, not its log": (from_margin(lambda z: torch.sigmoid(-z)), VALUE),
    "no sigmoid": (from_margin(lambda z: -z), VALUE),
    "square": (from_margin(lambda z: (z - 1).square()), VALUE),
    "smoothed in secret": (
        from_margin(lambda z: 0.9 * F.softplus(-z) + 0.1 * F.softplus(z)),
        VALUE,
    ),
    "averaged": (from_margin(lambda z: F.softplus(-z).mean()), VALUE),
    "chosen and rejected swapped": (
        from_inputs(lambda pc, pr, rc, rr, beta: (pr, pc, rr, rc, beta)),
        MARGIN,
    ),
    "reference ignored": (
        from_inputs(lambda pc, pr, rc, rr, beta: (pc, pr, 0 * rc, 0 * rr, beta)),
        VALUE,
    ),
    "references swapped": (
        from_inputs(lambda pc, pr, rc, rr, beta: (pc, pr, rr, rc, beta)),
        VALUE,
    ),
    "policy as its own reference": (
        from_inputs(lambda pc, pr, rc, rr, beta: (pc, pr, pc, pr, beta)),
        MARGIN,
    ),
    "policy as a moving reference": (
        from_inputs(lambda pc, pr, rc, rr, beta: (pc, pr, pc.detach(), pr.detach(), beta)),
        VALUE,
    ),
    "beta of almost 0": (
        from_inputs(lambda pc, pr, rc, rr, beta: (pc, pr, rc, rr, 1e-6)),
        VALUE,
    ),
    "beta ignored": (from_inputs(lambda pc, pr, rc, rr, beta: (pc, pr, rc, rr, 1.0)), VALUE),
    "only the rejected side learns": (
        from_inputs(lambda pc, pr, rc, rr, beta: (pc.detach(), pr, rc, rr, beta)),
        GRADIENT,
    ),
    "only the chosen side learns": (
        from_inputs(lambda pc, pr, rc, rr, beta: (pc, pr.detach(), rc, rr, beta)),
        GRADIENT,
    ),
    "rewards swapped": (
        lambda *x: PreferenceLoss(dpo_loss(*x)[0], *dpo_loss(*x)[:0:-1]),
        "rewards are not",
    ),
    "a tensor only": (lambda *x: dpo_loss(*x).losses, "Error"),
}


def test_what_speaks_against_a_run_is_told_of_the_right_winners():
    start = demo.Row(torch.zeros(4), torch.zeros(4))
    end = demo.Row(torch.zeros(4), torch.tensor([1.0, -0.5, 2.0, -0.25]))  # shorter, longer, …
    said = " ".join(demo.run_problems([start, end]))
    assert "are 1.500 where the winner is shorter and -0.375 where it is longer" in said
    assert "the held-out accuracy is 0.50" in said


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_loss_fails(run, name):
    loss, reason = BROKEN[name]
    code, report = run(loss)
    assert code == 1, report
    last = report.splitlines()[-1]
    assert last.startswith("FAILED: ")
    assert reason in last


def test_a_reference_that_learns_is_noticed(run, monkeypatch):
    def shared(policy):
        reference = make_reference(policy)
        reference.position_embedding.weight = policy.position_embedding.weight
        return reference

    monkeypatch.setattr(demo, "make_reference", shared)
    code, report = run(dpo_loss)
    assert code == 1
    assert "the reference has changed" in report


def test_a_training_loop_that_swaps_the_sides_is_noticed(run, monkeypatch):
    def swapping(policy, reference, dataset, *rest, **options):
        swapped = demo.PreferenceDataset(dataset.records, dataset.tokenizer)
        for row in swapped.rows:
            row["chosen"], row["rejected"] = row["rejected"], row["chosen"]
        return train_dpo(policy, reference, swapped, *rest, **options)

    monkeypatch.setattr(demo, "train_dpo", swapping)
    code, report = run(dpo_loss)
    assert code == 1
    assert MARGIN in report.splitlines()[-1]


def test_only_the_relatives_may_differ_from_dpo():
    assert demo.loss_problems(dpo_loss) == []
    assert demo.loss_problems(LOSSES["naive"])
    assert demo.loss_problems(LOSSES["ipo"])


# --- the page of appendix B ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def page():
    spec = importlib.util.spec_from_file_location("page", CAPSTONE / "dpo_from_scratch.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def converted(page_model):
    """The page's model as one of the library."""
    model = demo.new_model()
    halves = ("query_key_value", "output")
    weights = {
        ".".join(f"attention.{part}" if part in halves else part for part in name.split(".")): value
        for name, value in page_model.state_dict().items()
    }
    model.load_state_dict(weights)
    return model


def test_the_page_is_one_page_that_needs_only_torch():
    text = (CAPSTONE / "dpo_from_scratch.py").read_text("utf-8")
    assert len(text.splitlines()) <= 250
    imported = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module.split(".")[0])
    assert imported - set(sys.stdlib_module_names) == {"torch"}


def test_the_page_has_the_preferences_of_the_library(page):
    for seed in range(4):
        for pairs, dataset in zip(page.make_pairs(seed), demo.split(seed), strict=True):
            assert pairs == [(r.prompt, r.chosen, r.rejected) for r in dataset.records]


def test_the_page_computes_what_the_library_computes(page):
    training, held_out = page.make_pairs(SEED)
    both = zip(page.make_pairs(SEED), demo.split(SEED), strict=True)
    page_model, model = page.TinyGPT(SEED), demo.new_model(SEED)
    for name, value in converted(page_model).state_dict().items():
        torch.testing.assert_close(value, model.state_dict()[name])

    texts = [(x, y) for x, *pair in training + held_out for y in pair]
    page.warm_up(page_model, texts, SEED, steps=3)
    demo.warm_up(model, demo.split(SEED), SEED, steps=3)
    for pairs, dataset in both:
        expected = get_pair_log_probs(model, dataset.batch())
        torch.testing.assert_close(page.pair_log_probs(page_model, pairs), expected)

    numbers = torch.randn(4, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) - 9
    torch.testing.assert_close(page.dpo_loss(*numbers, 0.3), dpo_loss(*numbers, 0.3).losses)

    reference, page_reference = make_reference(model), page.make_reference(page_model)
    rows = page.train(page_model, page_reference, training, held_out, 3, report=lambda *_: None)
    seen = []
    train_dpo(
        model,
        reference,
        demo.split(SEED)[0],
        demo.replace(demo.CONFIG, steps=3, seed=SEED),
        evaluate=lambda policy: (
            seen.append(demo.margins(policy, reference, demo.split(SEED)[1])) or {}
        ),
        progress=False,
    )
    for (_, _, ours), theirs in zip(rows, seen, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-8)


def test_scoring_the_prompt_too_changes_no_margin(page, monkeypatch):
    def margins():
        policy = page.TinyGPT(SEED)
        pairs = page.make_pairs(SEED)
        reference = page.make_reference(policy)
        return page.train(policy, reference, *pairs, 2, report=lambda *_: None)[-1][2]

    def scored(prompt, response, encode=page.encode):
        ids, _ = encode(prompt, response)
        return ids, [1] * len(ids)

    right = margins()
    monkeypatch.setattr(page, "encode", scored)
    torch.testing.assert_close(margins(), right)


def test_the_tests_that_the_reader_runs_pass():
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."],
        cwd=CAPSTONE,
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
