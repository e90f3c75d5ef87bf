"""Measures of a policy against exact values on a model small enough to enumerate."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dpo_lib.closed_form import entropy, kl_divergence
from dpo_lib.data import PreferenceDataset
from dpo_lib.evaluation import (
    enumerate_responses,
    estimate,
    estimate_kl,
    evaluate_margins,
    evaluate_samples,
    reply_log_probs,
    response_distribution,
)
from dpo_lib.logprobs import get_sequence_log_probs
from dpo_lib.models import TinyGPT, TinyGPTConfig, WordTokenizer, load_sft, respond
from dpo_lib.world import judge, label_by_reward, load_pairs, world_tokenizer
from tests.helpers import deterministic

TOKENIZER = WordTokenizer(["a", "b", "c"])  # with PAD and EOS: five ids


def make_model(seed):
    torch.manual_seed(seed)
    model = TinyGPT(TinyGPTConfig(5, context_length=8, width=8, heads=2, layers=1)).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(15)
    return model


@pytest.fixture(scope="module")
def models():
    return make_model(0), make_model(1)


@pytest.fixture(scope="module")
def exact(models):
    """Log-probabilities of all responses of up to four tokens to "a b", under both models."""
    responses, mask = enumerate_responses(5, 4, eos_id=1, pad_id=0)
    prompt = torch.tensor(TOKENIZER.encode_prompt("a b"))
    return [response_distribution(model, prompt, responses, mask) for model in models]


class TestExact:
    def test_counts_and_masks(self):
        tokens, mask = enumerate_responses(3, 2, eos_id=1, pad_id=9)
        rows = [row[m.bool()].tolist() for row, m in zip(tokens, mask, strict=True)]
        assert rows == [[1], [0, 1], [2, 1], [0, 0], [0, 2], [2, 0], [2, 2]]
        assert tokens[0].tolist() == [1, 9]

    def test_probabilities_of_all_responses_sum_to_one(self, exact):
        for logps in exact:
            assert len(logps) == 1 + 4 + 16 + 64 + 256
            assert logps.exp().sum().item() == pytest.approx(1, abs=1e-12)

    def test_bad_sizes_are_named(self):
        with pytest.raises(ValueError, match="got 0, 1, 3"):
            enumerate_responses(3, 0, 1, 0)
        with pytest.raises(ValueError, match="got 2, 5, 3"):
            enumerate_responses(3, 2, 5, 0)


class TestSampled:
    def test_estimates_meet_the_exact_values(self, models, exact):
        report = evaluate_samples(
            models[0],
            TOKENIZER,
            ["a b"],
            models[1],
            judge=judge,
            per_prompt=20_000,
            max_new_tokens=4,
        )
        assert report.replies == 20_000
        assert abs(report.entropy.mean - entropy(exact[0]).item()) < 4 * report.entropy.error
        kl = kl_divergence(*exact).item()
        assert kl > 0.05
        for name in ("k1", "k3"):  # both unbiased
            mean, error = getattr(report.kl, name)
            assert abs(mean - kl) < 4 * error
        half_square = (exact[0].exp() * (exact[0] - exact[1]) ** 2).sum().item() / 2
        assert abs(report.kl.k2.mean - half_square) < 4 * report.kl.k2.error

    def test_reply_log_probs_are_those_of_the_sampled_tokens(self, models):
        replies = respond(models[0], TOKENIZER, ["a b", "c", "a"] * 5, max_new_tokens=4)
        assert {reply.finished for reply in replies} == {True, False}
        found = reply_log_probs(models[1], TOKENIZER, replies, batch_size=4)
        for reply, value in zip(replies, found, strict=True):
            prompt = torch.tensor([TOKENIZER.encode_prompt(reply.prompt)])
            alone = get_sequence_log_probs(models[1], prompt, torch.tensor([reply.tokens]))
            assert value.item() == pytest.approx(alone.item(), abs=1e-10)

    def test_reward_and_shares_come_from_the_judge(self, models):
        class Verdict:
            def __init__(self, prompt, text, finished):
                self.reward, self.correct, self.malformed = float(len(text)), True, not finished

        prompts = ["a b", "c"]
        report = evaluate_samples(
            models[0], TOKENIZER, prompts, judge=Verdict, per_prompt=50, seed=3, max_new_tokens=4
        )
        replies = respond(models[0], TOKENIZER, ["a b"] * 50 + ["c"] * 50, 4, seed=3)
        lengths = [len(reply.text) for reply in replies]
        assert report.true_reward.mean == pytest.approx(sum(lengths) / 100)
        assert report.correct == 1
        assert report.malformed == pytest.approx(sum(not r.finished for r in replies) / 100)
        assert report.length == pytest.approx(sum(r.length for r in replies) / 100)
        assert report.kl is None

    def test_entropy_and_kl_are_of_temperature_one_only(self, models):
        report = evaluate_samples(
            models[0], TOKENIZER, ["a"], models[1], judge=judge, temperature=0.5, max_new_tokens=4
        )
        assert math.isnan(report.entropy.mean)
        assert report.kl is None

    def test_model_is_at_no_distance_from_itself(self, models):
        report = evaluate_samples(
            models[0], TOKENIZER, ["a"], models[0], judge=judge, max_new_tokens=4
        )
        assert [e.mean for e in report.kl] == [0, 0, 0]


class TestEstimates:
    @deterministic
    @given(st.lists(st.tuples(st.floats(-30, 0), st.floats(-30, 0)), min_size=2))
    def test_k2_and_k3_are_never_negative(self, values):
        policy, reference = torch.tensor(values, dtype=torch.float64).T
        found = estimate_kl(policy, reference)
        assert found.k2.mean >= 0
        assert found.k3.mean >= -1e-12

    def test_by_hand(self):
        found = estimate_kl([-1.0, -2.0], [-1.5, -1.0])
        assert found.k1.mean == pytest.approx(-0.25)
        assert found.k2.mean == pytest.approx((0.125 + 0.5) / 2)
        assert found.k3.mean == pytest.approx(
            ((math.exp(-0.5) - 1 + 0.5) + (math.exp(1) - 1 - 1)) / 2
        )

    def test_mean_and_standard_error(self):
        assert estimate([1.0, 2.0, 3.0]) == pytest.approx((2.0, 1 / 3**0.5))
        assert math.isnan(estimate([1.0]).error)
        with pytest.raises(ValueError, match="values must not be empty"):
            estimate([])

    def test_bad_log_probs_are_named(self):
        with pytest.raises(ValueError, match="policy_logps"):
            estimate_kl([0.5, -1.0], [-1.0, -1.0])
        with pytest.raises(ValueError, match="reference_logps"):
            estimate_kl([-1.0, -1.0], [-1.0])


class Scripted(nn.Module):
    """Gives each response token a set probability, whatever came before."""

    def __init__(self, logps):
        super().__init__()
        self.logps = torch.tensor(logps, dtype=torch.float64)

    def forward(self, tokens):
        return self.logps.expand(*tokens.shape, -1)


class TestMargins:
    def test_by_hand(self):
        # ids: pad, eos, a, b, c; chosen "b" = b eos, rejected "c c" = c c eos
        policy = Scripted([0.1, 0.2, 0.1, 0.4, 0.2]).eval()
        policy.logps.log_()
        reference = Scripted([0.2, 0.2, 0.2, 0.2, 0.2]).eval()
        reference.logps.log_()
        from dpo_lib.data import PreferenceRecord

        dataset = PreferenceDataset([PreferenceRecord("a", "b", "c c")], TOKENIZER)
        report = evaluate_margins(policy, reference, dataset, beta=0.5)
        assert report.chosen_logp == pytest.approx(math.log(0.4 * 0.2))
        assert report.rejected_logp == pytest.approx(math.log(0.2**3))
        assert report.chosen_shift == pytest.approx(math.log(2))
        assert report.rejected_shift == pytest.approx(0)
        assert report.margin == pytest.approx(0.5 * math.log(2))
        assert report.chosen_reward == pytest.approx(0.5 * math.log(2))
        assert (report.accuracy, report.pairs) == (1.0, 1)

        naive = evaluate_margins(policy, None, dataset, beta=1.0)
        assert naive.margin == pytest.approx(math.log(0.08 / 0.008))
        assert math.isnan(naive.chosen_shift)

    def test_policy_equal_to_reference_ties_everywhere(self):
        dataset = PreferenceDataset(label_by_reward(load_pairs()[:40], 0), world_tokenizer())
        report = evaluate_margins(load_sft(), load_sft(), dataset)
        assert report.accuracy == 0.5
        assert report.margin == report.chosen_shift == 0

    def test_batch_size_changes_nothing(self):
        records = label_by_reward(load_pairs()[:37], 0)
        dataset = PreferenceDataset(records, world_tokenizer())
        torch.manual_seed(0)
        policy = load_sft()
        with torch.no_grad():
            policy.token_embedding.weight.add_(
                0.1 * torch.randn_like(policy.token_embedding.weight)
            )
        whole = evaluate_margins(policy, load_sft(), dataset)
        parts = evaluate_margins(policy, load_sft(), dataset, batch_size=5)
        assert whole == pytest.approx(parts, abs=1e-10)

    def test_bad_beta_is_named(self):
        dataset = PreferenceDataset(label_by_reward(load_pairs()[:2], 0), world_tokenizer())
        with pytest.raises(ValueError, match="beta"):
            evaluate_margins(load_sft(), load_sft(), dataset, beta=0)
