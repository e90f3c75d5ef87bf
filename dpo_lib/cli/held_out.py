"""Scores of pairs, or thumbs, that are not trained on, relative to the model before training."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dpo_lib.cli.parser import EVAL_PAIRS
from dpo_lib.cli.progress import Stage
from dpo_lib.cli.records import read_json, write_json
from dpo_lib.cli.settings import usual_every
from dpo_lib.data import PreferenceDataset
from dpo_lib.fast.pair_log_probs import PairLogProbs, Row, log_probs_of_rows
from dpo_lib.logprobs import responses_of
from dpo_lib.losses import (
    PreferenceLoss,
    UnpairedLoss,
    as_loss_function,
    takes_lengths,
)
from dpo_lib.losses.form import FOUR, LENGTHS
from dpo_lib.losses.unpaired import check_kind, mismatched_level
from dpo_lib.rewards import reward_accuracy
from dpo_lib.scores import apply_loss, pair_scores, summarize, tie_width, unpaired_scores

Loss = Callable[..., PreferenceLoss | UnpairedLoss]
THUMB = ("policy_logps", "reference_logps", "desirable")
SHARE = 1 / 4  # of the work of training: a fifth of both together
LEAST = 16  # pairs: fewer say nothing


def make_loss(name: str, options: dict[str, float], unpaired: bool = False) -> Loss:
    """A loss by name, with its own settings, each tried on one pair, or thumb.

    Raises
    ------
    ValueError
        If there is no such loss, it is not one of such data, it has no such setting, needs one
        that is not given, or a value is out of its range.
    """
    import inspect

    loss = as_loss_function(name, unpaired)
    check_kind(loss, unpaired)
    known = {
        key: value.default is value.empty
        for key, value in inspect.signature(loss).parameters.items()
        if key not in (*FOUR, *LENGTHS, *THUMB, "beta")
    }
    for key in options:
        if key not in known:
            raise ValueError(f"loss {name} has no setting {key!r}; it has {[*known] or 'none'}")
    for key, needed in known.items():
        if needed and key not in options:
            raise ValueError(f"loss {name} needs a value of its own for {key!r}: {key}=VALUE")
    chosen = functools.partial(loss, **options) if options else loss
    if unpaired:
        chosen(-1.0, -1.0, True)
        return chosen
    chosen(*[-1.0] * 4, **(dict.fromkeys(LENGTHS, 1) if takes_lengths(loss) else {}))
    return chosen


class Plan(NamedTuple):
    """How many held-out pairs are scored, and when."""

    final: int  # pairs at the end
    first: int  # of them while training
    every: int  # updates between two evaluations


def plan(steps: int, batch_size: int, lora: bool, longer: float, held_out: int) -> Plan:
    """Evaluations that take at most a fifth of the time, by counting what must be computed.

    A pass forward over a pair is one unit of work. An update costs two of them a pair, or three
    where every weight has a gradient; held-out pairs cost one for the reference and one each time
    they are scored.

    Parameters
    ----------
    steps, batch_size : int
        Of the run.
    lora : bool
        Whether adapters alone are trained.
    longer : float
        Tokens of a held-out pair, in multiples of those of a pair that is trained on.
    held_out : int
        Pairs that there are.
    """
    units = steps * batch_size * (2 if lora else 3) * SHARE / longer
    final = min(held_out, max(LEAST, int(0.4 * units)))
    left = units - 2 * final
    every = usual_every(steps)
    rounds = len(range(every, steps, every)) + 1  # the start costs nothing, the end does
    first = min(final, EVAL_PAIRS, int(left / rounds))
    if first < min(final, LEAST):
        return Plan(final, final, steps)
    return Plan(final, first, every)


@torch.no_grad()
def pair_log_probs(
    model: nn.Module, dataset: PreferenceDataset, stage: Stage | None = None
) -> Tensor:
    """Log-probabilities (nats) of every pair, shape (2, N): chosen, then rejected.

    Of thumbs: the response, then the mismatched one, if there are any.
    """
    log_probs = PairLogProbs(model)
    if stage is not None:
        log_probs.register_forward_hook(lambda _, given, __: stage.advance(len(given[0])))
    return _values(log_probs, dataset.rows)


def _values(log_probs: PairLogProbs, rows: Sequence[Row]) -> Tensor:
    return torch.stack(log_probs_of_rows(log_probs, rows)).cpu()  # (2, N)


def score(
    policy: Tensor,
    reference: Tensor,
    rows: Sequence[Row],
    loss: Loss,
    beta: float,
) -> dict[str, Any]:
    """Means over the pairs, from log-probabilities (2, N) of policy and reference.

    Accuracy is also given for the pairs whose chosen response is the longer one and for those
    where it is the shorter: a model that has learned the length alone is good at one of them.
    For thumbs the means are those of `summarize`, with the number of each kind.
    """
    if "desirable" in rows[0]:
        level, known = torch.zeros(()), len(policy) > 1
        if known:
            level = mismatched_level(policy[1], reference[1])
        means = summarize(loss, unpaired_scores(policy[0], reference[0], rows, level), beta)
        found = {name.removeprefix("reward_"): value.item() for name, value in means.items()}
        up = sum(row["desirable"] for row in rows)
        return {
            **{n: x for n, x in found.items() if not math.isnan(x) and (known or n != "level")},
            "thumbs_up": up,
            "thumbs_down": len(rows) - up,
        }
    scores = pair_scores(tuple(policy), tuple(reference), rows)
    result = {
        name.removeprefix("reward_"): value.item()
        for name, value in summarize(loss, scores, beta).items()
    }
    _, chosen, rejected = apply_loss(loss, scores, beta)
    tie = tie_width(scores, beta)
    longer = scores.chosen_lengths - scores.rejected_lengths
    for name, some in (("longer", longer > 0), ("shorter", longer < 0)):
        result[f"pairs_chosen_{name}"] = int(some.sum())
        if some.any():
            accuracy = reward_accuracy(chosen[some], rejected[some], tie).item()
            result[f"accuracy_chosen_{name}"] = accuracy
    return result


class HeldOut:
    """Scores a policy on held-out pairs; the reference's values are computed once, and kept.

    Parameters
    ----------
    rows : sequence of mapping
        Token ids of the pairs.
    loss : callable
    beta : float
    log_probs : PairLogProbs
        Of the policy that is trained.
    kept : path
        File of the reference's values; a resumed run finds them there.
    write : bool
        Whether this process writes the file.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        loss: Loss,
        beta: float,
        log_probs: PairLogProbs,
        kept: Path,
        write: bool,
    ) -> None:
        self.rows, self.loss, self.beta, self.log_probs = rows, loss, beta, log_probs
        self.kept, self.write = kept, write
        values = read_json(kept)
        self.reference: Tensor | None = None
        if values is not None:
            dtype = getattr(torch, values["dtype"])
            self.reference = torch.tensor(values["logps"], dtype=dtype)

    def at_start(self, first: int) -> dict[str, Any]:
        """Score the ``first`` pairs before any update: the policy still is the reference."""
        if self.reference is None:
            self.reference = _values(self.log_probs, self.rows)
            if self.write:
                kind = str(self.reference.dtype).removeprefix("torch.")
                write_json(self.kept, {"dtype": kind, "logps": self.reference.tolist()})
        return self._score(self.reference[:, :first])

    def __call__(
        self, first: int | None = None, log_probs: PairLogProbs | None = None
    ) -> dict[str, Any]:
        """Score all pairs, or the ``first`` ones; by the values of another model, if given."""
        return self._score(_values(log_probs or self.log_probs, self.rows[:first]))

    def _score(self, policy: Tensor) -> dict[str, Any]:
        number = policy.shape[1]
        reference = self.reference[:, :number]
        return score(policy, reference, self.rows[:number], self.loss, self.beta)


def lengths(rows: Sequence[Row]) -> dict[str, float]:
    """Mean number of tokens of each kind of responses: chosen and rejected, or thumbs up and down.

    A kind that is not there is left out.
    """
    kinds: dict[str, list[int]] = {}
    for row in rows:
        if "desirable" in row:
            name = "desirable" if row["desirable"] else "undesirable"
            kinds.setdefault(name, []).append(len(row["response"]))
        else:
            for side in responses_of(row):
                kinds.setdefault(side, []).append(len(row[side]))
    return {name: sum(sizes) / len(sizes) for name, sizes in sorted(kinds.items())}


def say_scores(found: dict[str, Any]) -> str:
    """The scores of held-out pairs, or thumbs, in words."""
    if "accuracy" in found:
        return (
            f"accuracy {found['accuracy']:.2f}, margin {found['margin']:.2f}, "
            f"log-probability of chosen {found['chosen_logp']:+.1f}, "
            f"of rejected {found['rejected_logp']:+.1f} nats"
        )
    names = {"desirable_logp": "thumbs up", "undesirable_logp": "thumbs down"}
    said = [f"AUC {found['auc']:.2f}, margin {found['margin']:.2f}"] if "auc" in found else []
    said += [f"log-probability of {w} {found[n]:+.1f} nats" for n, w in names.items() if n in found]
    return ", ".join(said)
