"""DPO from the first byte to a verdict in under a minute (appendix B): ``python -m dpo_lib demo``.

A byte-level model is taught to write good and bad answers alike, then trained on the twelve
preferences of `make_preferences` and their reversed lengths, less three prompts that are held out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpo_lib.data import PreferenceDataset, PreferenceRecord, make_preferences, pad
from dpo_lib.logprobs import get_sequence_log_probs
from dpo_lib.losses import LOSSES, PreferenceLoss, as_loss_function, dpo_loss
from dpo_lib.models import InstructionTokenizer, TinyGPT, TinyGPTConfig, respond
from dpo_lib.reference import fingerprint, make_reference
from dpo_lib.training import DPOConfig, train_dpo

STEPS = 30  # updates of preference training
CONFIG = DPOConfig(
    beta=1.0,
    learning_rate=1e-4,
    steps=STEPS,
    batch_size=18,  # all training pairs
    max_grad_norm=math.inf,
    eval_every=1,
)
BETAS = {"hinge": 0.25, "ipo": 0.1}  # with beta = 1 these stop at 1 and 0.5 nats, by design
LEAST_MARGIN = 0.25  # nats: what counts as grown
LEAST_ACCURACY = 2 / 3
WARM_UP_STEPS, WARM_UP_RATE, WARM_UP_BATCH = 300, 1e-2, 16
_TIE = 1e-9  # nats; all is float64

Loss = Callable[..., PreferenceLoss]


class Row(NamedTuple):
    """One line of the demo: the state of training before an update, or after the last one."""

    margins: Tensor  # of the training pairs (nats)
    held_out_margins: Tensor


def split(seed: int = 0) -> tuple[PreferenceDataset, PreferenceDataset]:
    """Training and held-out pairs, as many with a longer winner as with a shorter one.

    One prompt of each family is held out, never two whose losers evade in the same way.
    """
    training: list[PreferenceRecord] = []
    held_out: list[PreferenceRecord] = []
    both = zip(make_preferences("shorter"), make_preferences("longer"), strict=True)
    for number, records in enumerate(both):
        family, row = divmod(number, 4)
        (held_out if row == (seed + family) % 4 else training).extend(records)
    tokenizer = InstructionTokenizer()
    return PreferenceDataset(training, tokenizer), PreferenceDataset(held_out, tokenizer)


def new_model(seed: int = 0, width: int = 32) -> TinyGPT:
    """Untrained byte-level model in float64; the same weights on every processor."""
    config = TinyGPTConfig(
        len(InstructionTokenizer()), context_length=64, width=width, heads=2, layers=2
    )
    with torch.random.fork_rng(devices=[]):  # what the constructor draws is replaced below
        model = TinyGPT(config).double()
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.ndim == 2:
            nn.init.normal_(parameter, std=0.02, generator=generator)
    return model


def warm_up(
    model: nn.Module,
    datasets: Sequence[PreferenceDataset],
    seed: int = 0,
    steps: int = WARM_UP_STEPS,
) -> None:
    """Teach a model, in place, to write chosen and rejected responses alike: it takes no side."""
    rows = [
        (row["prompt"], row[side])
        for dataset in datasets
        for row in dataset.rows
        for side in ("chosen", "rejected")
    ]
    pad_id = InstructionTokenizer.PAD
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters())
    for step in range(steps):
        some = torch.randperm(len(rows), generator=generator)[:WARM_UP_BATCH].tolist()
        prompt, prompt_mask = pad([rows[i][0] for i in some], pad_id, "left")
        response, response_mask = pad([rows[i][1] for i in some], pad_id, "right")
        logps = get_sequence_log_probs(model, prompt, response, prompt_mask, response_mask)
        slow = min(1, (step + 1) / 10, 1 - step / steps)  # at both ends
        optimizer.param_groups[0]["lr"] = WARM_UP_RATE * slow
        optimizer.zero_grad()
        (-logps.sum() / response_mask.sum()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()


@torch.no_grad()
def margins(
    policy: nn.Module, reference: nn.Module, dataset: PreferenceDataset, beta: float = CONFIG.beta
) -> Tensor:
    """Reward margin of each pair (nats), shape ``(N,)``.

    Taken from the log-probabilities of the texts, not from what a loss reports: a broken loss
    must not grade itself.
    """
    batch = dataset.batch()
    gaps = []
    for model in (policy, reference):
        chosen, rejected = (
            get_sequence_log_probs(
                model, batch["prompt"], batch[side], batch["prompt_mask"], batch[f"{side}_mask"]
            )
            for side in ("chosen", "rejected")
        )
        gaps.append(chosen - rejected)
    return beta * (gaps[0] - gaps[1])


def run_problems(rows: Sequence[Row]) -> list[str]:
    """What speaks against a run, in words; empty if held-out margins clearly grew."""
    start, end = rows[0], rows[-1].held_out_margins
    largest = max(start.margins.abs().max(), start.held_out_margins.abs().max()).item()
    mean, shorter, longer = (z.mean().item() for z in (end, end[0::2], end[1::2]))
    accuracy = _accuracy(end)
    checks = {
        f"margins start at up to {largest:.3g}, not at 0": largest < _TIE,
        f"the held-out margin is {mean:.3f}, below {LEAST_MARGIN} nats": mean >= LEAST_MARGIN,
        f"held-out margins are {shorter:.3f} where the winner is shorter and {longer:.3f} where it "
        "is longer: they did not both grow": min(shorter, longer) > 0,
        f"the held-out accuracy is {accuracy:.2f}, below 2/3": accuracy > LEAST_ACCURACY - _TIE,
    }
    return [problem for problem, fine in checks.items() if not fine]


def loss_problems(loss: Loss) -> list[str]:
    """How a loss differs from the DPO loss, in words; empty if it is the DPO loss."""
    policy = torch.tensor([[-10.0, -2.1, -0.3, -4.0], [-15.0, -4.5, -7.0, -4.0]]).double()
    reference = torch.tensor([[-12.0, -3.0, -5.2, -4.0], [-14.0, -3.2, -1.0, -4.0]]).double()
    policy.requires_grad_()
    found = {}
    for beta in (0.1, 1.0, 2.0):
        losses, *rewards = loss(*policy, *reference, beta)
        expected = beta * (policy.detach() - reference)  # (2, 4): chosen, rejected
        z = expected[0] - expected[1]
        (gradient,) = torch.autograd.grad(losses.sum(), policy)
        pull = beta * torch.sigmoid(-z)
        found |= {
            "the loss is not -log sigmoid(margin)": losses.shape == z.shape
            and torch.allclose(losses, F.softplus(-z)),
            "its gradient is not -+ beta sigmoid(-margin)": torch.allclose(
                gradient, torch.stack([-pull, pull])
            ),
            "its rewards are not beta times the log-ratios": all(
                map(torch.equal, rewards, expected)
            ),
        }
        if not all(found.values()):
            break
    return [problem for problem, fine in found.items() if not fine]


def run_demo(
    *,
    steps: int = STEPS,
    seed: int = 0,
    loss: Loss | str = dpo_loss,
    write: Callable[[str], None] = print,
) -> int:
    """Warm up, train with a loss, and judge the run by prompts that training never saw.

    Parameters
    ----------
    steps : int
        Updates of preference training.
    seed : int
        Of the weights, the warm-up and the choice of held-out prompts.
    loss : callable or str
        A loss in the form of `dpo_loss`, or its name in `dpo_lib.losses.LOSSES`.
    write : callable
        Takes each line of the report.

    Returns
    -------
    int
        0 if the run succeeded: every margin starts at 0, the mean held-out margin ends at
        0.25 nats or more and above 0 for both lengths, 2/3 of the held-out pairs are ranked
        right, and the reference is unchanged. A loss that is not one of the relatives of DPO in
        `LOSSES` must also have the value and the gradient of DPO. 1 if not, with the reasons.

    Raises
    ------
    ValueError
        If ``steps`` is below 1 or the loss's name is unknown.
    """
    loss = as_loss_function(loss)
    name = next((name for name, known in LOSSES.items() if known is loss), "dpo")
    config = replace(CONFIG, steps=steps, seed=seed, beta=BETAS.get(name, CONFIG.beta))
    training, held_out = split(seed)
    policy = new_model(seed)
    write(f"warm-up: {WARM_UP_STEPS} updates on good and bad answers alike")
    warm_up(policy, (training, held_out), seed)
    reference = make_reference(policy)
    before = fingerprint(reference)

    write(f"{name}: {len(training)} pairs, {len(held_out)} held out")
    write("                    training          held out")
    write("update     loss   margin accuracy   margin accuracy")
    rows: list[Row] = []

    def evaluate(policy: nn.Module) -> dict[str, Any]:
        rows.append(Row(*(margins(policy, reference, pairs) for pairs in (training, held_out))))
        return {}

    def line(start: str) -> str:
        return start + "".join(f"{z.mean():9.3f}{_accuracy(z):9.2f}" for z in rows[-1])

    problems = []
    try:
        train_dpo(
            policy,
            reference,
            training,
            config,
            loss=loss,
            evaluate=evaluate,
            on_step=lambda row: write(line(f"{row['step']:6d}{row['loss']:9.4f}")),
            progress=False,
        )
        write(line(f"{steps:6d}{'':9}"))
        problems += run_problems(rows)
        if name == "dpo":
            problems += loss_problems(loss)
    except (ArithmeticError, AttributeError, RuntimeError, TypeError, ValueError) as error:
        problems.append(f"{type(error).__name__}: {error}")
    if fingerprint(reference) != before:
        problems.append("the reference has changed")

    prompts = [record.prompt for record in held_out.records[::2]]
    replies = (
        respond(model, held_out.tokenizer, prompts, 40, 0.0) for model in (reference, policy)
    )
    for old, new in zip(*replies, strict=True):
        write(f"{old.prompt:18} {old.text:34} -> {new.text}")
    if problems:
        write("FAILED: " + "; ".join(problems))
        return 1
    write("The held-out margins grew.")
    return 0


def _accuracy(z: Tensor) -> float:
    """Share of margins above 0; ties count one half, up to rounding."""
    return ((z > _TIE).double() + (z.abs() <= _TIE).double() / 2).mean().item()
