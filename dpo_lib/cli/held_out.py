"""Scores of pairs that are not trained on, relative to the model before training."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dpo_lib.cli.records import read_json, write_json
from dpo_lib.data import PreferenceDataset
from dpo_lib.fast.pair_log_probs import PairLogProbs
from dpo_lib.losses import PreferenceLoss, as_loss_function, takes_lengths
from dpo_lib.losses.form import FOUR, LENGTHS
from dpo_lib.rewards import reward_accuracy
from dpo_lib.scores import apply_loss, pair_scores, summarize, tie_width

Loss = Callable[..., PreferenceLoss]
BATCH = 16  # pairs in a forward pass


def make_loss(name: str, options: dict[str, float]) -> Loss:
    """A loss by name, with its own settings, each tried on one pair.

    Raises
    ------
    ValueError
        If there is no such loss, it has no such setting, needs one that is not given, or a value
        is out of its range.
    """
    import inspect

    loss = as_loss_function(name)
    known = {
        key: value.default is value.empty
        for key, value in inspect.signature(loss).parameters.items()
        if key not in (*FOUR, *LENGTHS, "beta")
    }
    for key in options:
        if key not in known:
            raise ValueError(f"loss {name} has no setting {key!r}; it has {[*known] or 'none'}")
    for key, needed in known.items():
        if needed and key not in options:
            raise ValueError(f"loss {name} needs a value of its own for {key!r}: {key}=VALUE")
    chosen = functools.partial(loss, **options) if options else loss
    chosen(*[-1.0] * 4, **(dict.fromkeys(LENGTHS, 1) if takes_lengths(loss) else {}))
    return chosen


@torch.no_grad()
def pair_log_probs(model: nn.Module, dataset: PreferenceDataset, dtype: str = "float32") -> Tensor:
    """Log-probabilities (nats) of every pair, shape (2, N): chosen, then rejected."""
    log_probs = PairLogProbs(model, dtype=dtype)
    rows = dataset.rows
    parts = [
        torch.stack(log_probs(rows[start : start + BATCH])).cpu()
        for start in range(0, len(rows), BATCH)
    ]
    return torch.cat(parts, dim=1)


def score(
    policy: Tensor,
    reference: Tensor,
    dataset: PreferenceDataset,
    loss: Loss,
    beta: float,
) -> dict[str, Any]:
    """Means over the pairs, from log-probabilities (2, N) of policy and reference.

    Accuracy is also given for the pairs whose chosen response is the longer one and for those
    where it is the shorter: a model that has learned the length alone is good at one of them.
    """
    scores = pair_scores(tuple(policy), tuple(reference), dataset.rows)
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
    dataset : PreferenceDataset
    loss : callable
    beta : float
    dtype : str
        As in `DPOConfig`.
    kept : path
        File of the reference's values; a resumed run finds them there.
    write : bool
        Whether this process writes the file.
    """

    def __init__(
        self,
        dataset: PreferenceDataset,
        loss: Loss,
        beta: float,
        dtype: str,
        kept: Path,
        write: bool,
    ) -> None:
        self.dataset, self.loss, self.beta, self.dtype = dataset, loss, beta, dtype
        self.kept, self.write = kept, write
        values = read_json(kept)
        self.reference: Tensor | None = None
        if values is not None:
            dtype = getattr(torch, values["dtype"])
            self.reference = torch.tensor(values["logps"], dtype=dtype)

    def start(self, policy: nn.Module) -> None:
        """Take the policy, as it is before training, for the reference."""
        if self.reference is None:
            self.reference = pair_log_probs(policy, self.dataset, self.dtype)  # (2, N)
            if self.write:
                kind = str(self.reference.dtype).removeprefix("torch.")
                write_json(self.kept, {"dtype": kind, "logps": self.reference.tolist()})

    def __call__(self, policy: nn.Module, first: int | None = None) -> dict[str, Any]:
        """Score all pairs, or the ``first`` ones."""
        self.start(policy)
        some = (
            self.dataset
            if first is None
            else self.dataset.take(range(min(first, len(self.dataset))))
        )
        now = pair_log_probs(policy, some, self.dtype)
        return score(now, self.reference[:, : len(some)], some, self.loss, self.beta)


def lengths(dataset: PreferenceDataset) -> tuple[float, float]:
    """Mean number of tokens of the chosen and of the rejected responses."""

    def mean(rows: Sequence[Sequence[int]]) -> float:
        return sum(map(len, rows)) / len(rows)

    return mean([row["chosen"] for row in dataset.rows]), mean(
        [row["rejected"] for row in dataset.rows]
    )
