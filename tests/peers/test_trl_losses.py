"""Each loss that TRL has: TRL's own lines on random log-probabilities, and ours on the same.

The trainers' loss methods run as they are, on a trainer that was never built and a "model" that
returns what it is told. Where the conventions differ the test says how.
"""

import collections
import dataclasses
import functools
import inspect
import re
from types import SimpleNamespace

import accelerate
import pytest
import torch
import trl
from torch.testing import assert_close

from dpo_lib.losses import LOSSES, unpaired_kto_loss
from dpo_lib.losses.trl import TRL_OPTIONS

pytestmark = pytest.mark.filterwarnings("ignore")

BATCH, COLUMNS, PROMPT = 7, 12, 3  # each row: 3 prompt tokens, then a response of 1 to 9 tokens
BETAS = pytest.mark.parametrize("beta", [0.1, 2.0])


class Pairs:
    """Log-probabilities of the tokens of both responses of each pair, and what comes of them."""

    def __init__(self, seed=0, equal_lengths=False):
        generator = torch.Generator().manual_seed(seed)
        rows = 2 * BATCH  # the chosen, then the rejected
        lengths = torch.randint(1, COLUMNS - PROMPT + 1, (rows,), generator=generator)
        if equal_lengths:
            lengths[:] = 4
        places = torch.arange(COLUMNS)
        self.mask = ((places >= PROMPT) & (places < PROMPT + lengths[:, None])).long()  # (2B, T)
        # In float32, as TRL trains; column t of TRL's log_probs belongs to token t + 1.
        self.policy, self.reference = (
            -3 * torch.rand(rows, COLUMNS - 1, generator=generator) * self.mask[:, 1:]
            for _ in range(2)
        )
        self.lengths = dict(
            zip(("chosen_lengths", "rejected_lengths"), lengths.chunk(2), strict=True)
        )
        self.policy_sums = self.policy.sum(dim=1).chunk(2)
        self.reference_sums = self.reference.sum(dim=1).chunk(2)
        self.sums = (*self.policy_sums, *self.reference_sums)
        self.means = tuple(
            x / n for x, n in zip(self.sums, 2 * list(self.lengths.values()), strict=True)
        )
        self.policy_means = self.means[:2]

    def model(self, log_probs):
        """What TRL's patched models return."""
        zeros = torch.zeros_like(log_probs)
        return SimpleNamespace(
            log_probs=log_probs,
            entropy=zeros,
            mean_logits=zeros,
            is_top1=zeros.bool(),
            log_sum_sq_probs=zeros,
        )


def unbuilt(trainer_class, **attributes):
    """A trainer with these attributes and no model, data or settings."""
    trainer = trainer_class.__new__(trainer_class)
    common = {
        "accelerator": accelerate.Accelerator(cpu=True),
        "model": SimpleNamespace(training=True),
        "precompute_ref_logps": True,
        "aux_loss_enabled": False,
        "_metrics": {"train": collections.defaultdict(list)},
        "_total_train_tokens": 0,
        "_tp_size": 1,
    }
    for name, value in {**common, **attributes}.items():
        setattr(trainer, name, value)
    return trainer


def dpo_trainer_loss(
    pairs, beta, *loss_types, weights=None, label_smoothing=0.0, divergence="reverse_kl",
    coefficient=0.5, use_weighting=False,
):  # fmt: skip
    """The mean loss of TRL's DPOTrainer."""
    trainer = unbuilt(
        trl.DPOTrainer,
        beta=beta,
        loss_types=list(loss_types),
        loss_weights=weights or [1.0] * len(loss_types),
        label_smoothing=label_smoothing,
        ld_alpha=None,
        f_divergence_type=divergence,
        f_alpha_divergence_coef=coefficient,
        use_weighting=use_weighting,
    )
    inputs = {
        "input_ids": torch.zeros_like(pairs.mask),
        "attention_mask": torch.ones_like(pairs.mask),
        "completion_mask": pairs.mask,
        "ref_chosen_logps": pairs.reference_sums[0],
        "ref_rejected_logps": pairs.reference_sums[1],
    }
    return trainer._compute_loss(lambda **_: pairs.model(pairs.policy), inputs, False)


def cpo_losses(chosen, rejected, beta, loss_type, label_smoothing=0.0, gamma=0.5):
    """The losses of TRL's CPOTrainer, one for each pair; it knows no reference."""
    from trl.experimental.cpo import CPOTrainer

    trainer = unbuilt(
        CPOTrainer,
        beta=beta,
        loss_type=loss_type,
        label_smoothing=label_smoothing,
        simpo_gamma=gamma,
        alpha=0.0,
    )
    return trainer.cpo_loss(chosen, rejected)


def flat(pairs):
    """Log-probabilities under the policy and under a reference that is flat over responses."""
    return (*pairs.policy_sums, *map(torch.zeros_like, pairs.policy_sums))


# --- DPOTrainer ----------------------------------------------------------------------------------


@BETAS
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("dpo", "sigmoid"), ("hinge", "hinge"), ("length_normalized_dpo", "sigmoid_norm")],
)
def test_the_same_by_another_name(ours, theirs, beta):
    pairs = Pairs()
    lengths = pairs.lengths if ours == "length_normalized_dpo" else {}
    expected = dpo_trainer_loss(pairs, beta, theirs)
    assert_close(LOSSES[ours](*pairs.sums, beta, **lengths).losses.mean(), expected)


@BETAS
@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.4])
def test_robust(beta, epsilon):
    pairs = Pairs()
    expected = dpo_trainer_loss(pairs, beta, "robust", label_smoothing=epsilon)
    ours = LOSSES["robust_dpo"](*pairs.sums, beta, label_smoothing=epsilon).losses.mean()
    assert_close(ours, expected)


@BETAS
def test_ipo_on_sums_here_and_on_means_there(beta):
    """TRL divides each log-ratio by its response's length before it squares the gap."""
    pairs = Pairs()
    expected = dpo_trainer_loss(pairs, beta, "ipo")
    assert_close(LOSSES["ipo"](*pairs.means, beta).losses.mean(), expected)
    assert not torch.isclose(LOSSES["ipo"](*pairs.sums, beta).losses.mean(), expected, rtol=1e-2)


@BETAS
@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_rpo_is_sigmoid_plus_sft(beta, alpha):
    """TRL's fine-tuning term is a mean over the tokens of the batch; ours, as in the paper, over
    those of each response. With chosen responses of one length the two are the same."""
    pairs = Pairs(equal_lengths=True)
    expected = dpo_trainer_loss(pairs, beta, "sigmoid", "sft", weights=[1.0, alpha])
    rpo = functools.partial(LOSSES["rpo"], beta=beta, alpha=alpha)
    assert_close(rpo(*pairs.sums, **pairs.lengths).losses.mean(), expected)

    pairs = Pairs()
    expected = dpo_trainer_loss(pairs, beta, "sigmoid", "sft", weights=[1.0, alpha])
    tokens = pairs.lengths["chosen_lengths"]
    of_the_batch = -pairs.policy_sums[0].sum() / tokens.sum()
    of_each = -(pairs.policy_sums[0] / tokens).mean()
    ours = rpo(*pairs.sums, **pairs.lengths).losses.mean()
    assert_close(ours + alpha * (of_the_batch - of_each), expected)
    assert not torch.isclose(ours, expected, rtol=1e-3)


@BETAS
def test_ipo_per_token(beta):
    pairs = Pairs()
    ours = LOSSES["ipo_per_token"](*pairs.sums, beta, **pairs.lengths).losses.mean()
    assert_close(ours, dpo_trainer_loss(pairs, beta, "ipo"))


@BETAS
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("nca", "nca_pair"),
        ("bco", "bco_pair"),
        ("sppo", "sppo_hard"),
        ("apo_zero", "apo_zero"),
        ("apo_down", "apo_down"),
    ],
)
def test_each_response_on_its_own(ours, theirs, beta):
    pairs = Pairs()
    expected = dpo_trainer_loss(pairs, beta, theirs)
    assert_close(LOSSES[ours](*pairs.sums, beta).losses.mean(), expected)


@BETAS
def test_apo_zero_is_twice_kto_at_level_0(beta):
    """TRL adds the two responses of a pair, our KTO takes their mean."""
    pairs = Pairs()
    ours = LOSSES["kto"](*pairs.sums, beta, kl=0.0).losses.mean()
    assert_close(2 * ours, dpo_trainer_loss(pairs, beta, "apo_zero"))


@BETAS
@pytest.mark.parametrize("divergence", ["forward_kl", "js_divergence"])
def test_other_divergences(divergence, beta):
    pairs = Pairs()
    ours = LOSSES[f"{divergence.removesuffix('_divergence')}_dpo"](*pairs.sums, beta).losses
    assert_close(ours.mean(), dpo_trainer_loss(pairs, beta, "sigmoid", divergence=divergence))


@BETAS
@pytest.mark.parametrize("order", [0.2, 0.5, 1.0])
def test_the_alpha_divergence_is_counted_from_the_other_end(order, beta):
    pairs = Pairs()
    ours = LOSSES["alpha_dpo"](*pairs.sums, beta, order=order).losses.mean()
    options = {"divergence": "alpha_divergence", "coefficient": 1 - order}
    assert_close(ours, dpo_trainer_loss(pairs, beta, "sigmoid", **options))


@BETAS
def test_mpo_is_a_weighted_sum(beta):
    """With chosen responses of one length, for their term of fine-tuning; see RPO above."""
    pairs = Pairs(equal_lengths=True)
    weights = [0.8, 0.2, 1.0]
    expected = dpo_trainer_loss(pairs, beta, "sigmoid", "bco_pair", "sft", weights=weights)
    assert_close(LOSSES["mpo"](*pairs.sums, beta, **pairs.lengths).losses.mean(), expected)


@BETAS
def test_wpo_without_its_alignment(beta):
    """The model above says that a token's probabilities, squared, add up to 1."""
    pairs = Pairs()
    expected = dpo_trainer_loss(pairs, beta, "sigmoid", use_weighting=True)
    assert_close(LOSSES["wpo"](*pairs.sums, beta, **pairs.lengths).losses.mean(), expected)


# --- CPOTrainer: no reference --------------------------------------------------------------------


@BETAS
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.6])
def test_simpo(beta, gamma):
    """TRL gives its loss means; ours divides sums itself. Both add gamma after beta."""
    pairs = Pairs()
    expected = cpo_losses(*pairs.policy_means, beta, "simpo", gamma=gamma)
    ours = LOSSES["simpo"](*pairs.sums, beta, gamma=gamma, **pairs.lengths)
    for mine, theirs in zip(ours, expected, strict=True):
        assert_close(mine, theirs)


@BETAS
def test_reference_free(beta):
    pairs = Pairs()
    expected = cpo_losses(*pairs.policy_sums, beta, "sigmoid")
    for mine, theirs in zip(LOSSES["naive"](*pairs.sums, beta), expected, strict=True):
        assert_close(mine, theirs)


@BETAS
@pytest.mark.parametrize("epsilon", [0.1, 0.4])
def test_cdpo_against_a_flat_reference(beta, epsilon):
    """TRL 1.16 smooths labels in CPO only, not in its sigmoid loss with a reference."""
    pairs = Pairs()
    expected = cpo_losses(*pairs.policy_sums, beta, "sigmoid", label_smoothing=epsilon)
    ours = LOSSES["cdpo"](*flat(pairs), beta, label_smoothing=epsilon)
    for mine, theirs in zip(ours, expected, strict=True):
        assert_close(mine, theirs)


@BETAS
@pytest.mark.parametrize("name", ["hinge", "ipo"])
def test_hinge_and_ipo_against_a_flat_reference(name, beta):
    """The loss itself, on sums; CPO's trainer would hand IPO means."""
    pairs = Pairs()
    expected = cpo_losses(*pairs.policy_sums, beta, name)
    for mine, theirs in zip(LOSSES[name](*flat(pairs), beta), expected, strict=True):
        assert_close(mine, theirs)


# --- ORPOTrainer ---------------------------------------------------------------------------------


@BETAS
def test_the_odds_ratio_of_orpo(beta):
    """TRL's method returns the second term alone, with its sign turned: beta log sigma(log odds).

    The first term, fine-tuning, TRL takes over prompt and response and over the tokens of the
    batch; ours is over each response. The trainers are compared in test_trl_training.py.
    """
    from trl.experimental.orpo import ORPOTrainer

    pairs = Pairs()
    trainer = unbuilt(ORPOTrainer, beta=beta)
    minus_second, chosen_rewards, rejected_rewards, *_ = trainer.odds_ratio_loss(
        *pairs.policy_means
    )
    ours = LOSSES["orpo"](*pairs.sums, beta, **pairs.lengths)
    assert_close(ours.losses, -pairs.policy_means[0] - minus_second)
    assert_close(ours.chosen_rewards, chosen_rewards)
    assert_close(ours.rejected_rewards, rejected_rewards)


# --- KTOTrainer ----------------------------------------------------------------------------------


@BETAS
@pytest.mark.parametrize("lift", [0.0, 2.0])  # without, the level is cut off at 0
@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.5, 3.0)])
def test_kto_at_their_level(beta, lift, weights):
    """TRL takes the mean over the examples; with two to a pair that is our mean over pairs.

    Its level comes from responses under wrong prompts, which it runs through both models; here
    they are random numbers like the others. Ours takes that level as ``kl``.
    """
    pairs, mismatched = Pairs(), Pairs(seed=1)
    desirable_weight, undesirable_weight = weights
    policy_kl = mismatched.policy * (1 - 0.2 * lift)
    reference_kl = mismatched.reference.sum(dim=1)
    trainer = unbuilt(
        trl.KTOTrainer,
        beta=beta,
        loss_type="kto",
        calculate_KL=True,
        desirable_weight=desirable_weight,
        undesirable_weight=undesirable_weight,
    )
    inputs = {
        "input_ids": torch.zeros_like(pairs.mask),
        "attention_mask": torch.ones_like(pairs.mask),
        "completion_mask": pairs.mask,
        "KL_input_ids": torch.ones_like(pairs.mask),  # so that the model below knows them
        "KL_attention_mask": torch.ones_like(pairs.mask),
        "KL_completion_mask": mismatched.mask,
        "label": torch.tensor([True] * BATCH + [False] * BATCH),
        "ref_logps": pairs.reference.sum(dim=1),
        "ref_KL_logps": reference_kl,
    }

    def model(input_ids, **_):
        return pairs.model(policy_kl if input_ids.any() else pairs.policy)

    expected = trainer._compute_loss(model, inputs, False)
    level = (policy_kl.sum(dim=1) - reference_kl).mean().clamp(min=0)
    assert (level > 0) == (lift > 0)
    ours = LOSSES["kto"](
        *pairs.sums,
        beta,
        kl=level,
        desirable_weight=desirable_weight,
        undesirable_weight=undesirable_weight,
    )
    assert_close(ours.losses.mean(), expected)
    thumbs = unpaired_kto_loss(
        torch.cat(pairs.policy_sums),
        torch.cat(pairs.reference_sums),
        inputs["label"],
        beta,
        kl=level,
        desirable_weight=desirable_weight,
        undesirable_weight=undesirable_weight,
    )
    assert_close(thumbs.losses.mean(), expected)


# --- names ---------------------------------------------------------------------------------------


def quoted_values(config, field):
    """The values that the help of an option names."""
    (found,) = (x for x in dataclasses.fields(config) if x.name == field)
    words = found.metadata["help"].partition("Only the loss types")[0].partition("Example")[0]
    return found.metadata.get("choices") or re.findall(r"`'?([a-z_]+)'?`", words)


def test_the_table_of_names_is_that_of_the_installed_trl():
    from trl.experimental.cpo import CPOConfig

    configs = {"DPOTrainer": trl.DPOConfig, "CPOTrainer": CPOConfig, "KTOTrainer": trl.KTOConfig}
    listed = collections.defaultdict(set)
    for option in TRL_OPTIONS:
        listed[option.trainer].add(option.value)
        assert not option.ours or option.ours in (*LOSSES, "unpaired_kto_loss"), option
    for trainer, values in listed.items():
        name, field = trainer.split()
        theirs = set(quoted_values(configs[name], field)) - {"loss_weights"}
        assert values == theirs, trainer


def test_trl_has_no_r_dpo_and_no_dpop():
    """Should TRL gain these, compare them too."""
    known = inspect.getsource(trl.DPOTrainer._compute_loss).lower()
    assert "sigmoid_norm" in known
    for name in ("dpop", "r_dpo", "length_regular", "chi", "odpo", "cal_dpo"):
        assert name not in known
