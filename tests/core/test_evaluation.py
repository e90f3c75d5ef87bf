"""Measures of a policy against exact values on a model small enough to enumerate."""

import math
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dpo_lib.closed_form import entropy, kl_divergence
from dpo_lib.data import PreferenceDataset
from dpo_lib.evaluation import (
    clustered_share,
    enumerate_responses,
    estimate,
    estimate_kl,
    evaluate_margins,
    evaluate_samples,
    least_kl,
    reply_log_probs,
    response_distribution,
    wilson_interval,
)
from dpo_lib.logprobs import get_sequence_log_probs
from dpo_lib.models import TinyGPT, TinyGPTConfig, WordTokenizer, load_base, load_sft, respond
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
        with pytest.raises(ValueError, match="max_length must be at least 1, got 0"):
            enumerate_responses(3, 0, 1, 0)
        with pytest.raises(ValueError, match=r"eos_id must be .* got 5 and vocab_size 3"):
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

        naive = evaluate_margins(policy, None, dataset, beta=0.5)
        assert naive.chosen_reward == pytest.approx(0.5 * math.log(0.08))
        assert naive.rejected_reward == pytest.approx(0.5 * math.log(0.008))
        assert naive.margin == pytest.approx(0.5 * math.log(0.08 / 0.008))
        assert math.isnan(naive.chosen_shift)

    def test_policy_equal_to_reference_ties_everywhere(self):
        dataset = PreferenceDataset(label_by_reward(load_pairs()[:40], 0), world_tokenizer())
        report = evaluate_margins(load_sft(), load_sft(), dataset)
        assert report.accuracy == 0.5
        assert report.margin == report.chosen_shift == 0

    def test_a_difference_of_last_bits_is_a_tie(self):
        dataset = PreferenceDataset(label_by_reward(load_pairs()[:40], 0), world_tokenizer())
        sft = load_sft()

        def rounded(tokens, attention_mask, position_ids):
            return sft(tokens, attention_mask, position_ids) + 10  # the same but for rounding

        report = evaluate_margins(rounded, sft, dataset)
        assert report.accuracy == 0.5
        assert 0 < abs(report.margin) < 1e-13

    def test_beta_is_a_tenth_unless_given(self):
        dataset = PreferenceDataset(label_by_reward(load_pairs()[:4], 0), world_tokenizer())
        usual = evaluate_margins(load_base(), load_sft(), dataset)
        assert usual == evaluate_margins(load_base(), load_sft(), dataset, beta=0.1)

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


class TestLeastKL:
    def test_conditioning_pays_the_log_of_the_share(self):
        reference = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
        shows = torch.tensor([True, False, True, False])
        share = reference[shows].sum()
        conditioned = torch.where(shows, reference / share, 0.0)
        kl = torch.special.xlogy(conditioned, conditioned / reference).nansum()
        assert kl.item() == pytest.approx(-math.log(share)) == pytest.approx(least_kl(share, 1.0))

    @deterministic
    @given(st.lists(st.floats(0.01, 1), min_size=8, max_size=8))
    def test_no_policy_is_nearer(self, weights):
        weights = torch.tensor(weights, dtype=torch.float64).reshape(2, 4)
        reference, policy = weights / weights.sum(dim=1, keepdim=True)
        kl = (policy * (policy / reference).log()).sum().item()
        bound = least_kl(reference[:2].sum().item(), policy[:2].sum().item())
        assert bound + 1e-12 >= 0
        assert bound <= kl + 1e-12

    def test_a_mean_over_prompts_is_no_nearer_either(self):
        before, after = [0.1, 0.5, 0.9], [0.3, 0.5, 1.0]
        each = sum(least_kl(p, q) for p, q in zip(before, after, strict=True)) / 3
        assert least_kl(sum(before) / 3, sum(after) / 3) < each

    def test_edges(self):
        assert least_kl(0.3, 0.3) == least_kl(0.0, 0.0) == least_kl(1.0, 1.0) == 0
        assert least_kl(0.0, 0.1) == least_kl(1.0, 0.9) == math.inf
        with pytest.raises(ValueError, match=r"after must be in \[0, 1\], got 1.5"):
            least_kl(0.5, 1.5)


class TestClusteredShare:
    def test_one_a_cluster_is_wilsons(self):
        found = clustered_share([[1]] * 7 + [[0]] * 13)
        assert found == (0.35, *wilson_interval(7, 20))
        # Its ends solve (share - p)^2 = z^2 p (1 - p) / n.
        for p in found[1:]:
            assert (0.35 - p) ** 2 == pytest.approx(1.959964**2 * p * (1 - p) / 20)

    def test_clusters_that_agree_count_once(self):
        one, many = clustered_share([[1]] * 7 + [[0]] * 13), [[1] * 5] * 7 + [[0] * 5] * 13
        assert clustered_share(many)[1:] == pytest.approx(one[1:], abs=0.01)
        assert clustered_share([[1, 1]] * 6) == (1.0, *wilson_interval(6, 6))
        assert clustered_share([[0, 0]])[1:] == wilson_interval(0, 1)

    def test_clusters_vary_as_their_mean_does(self):
        error = estimate([1.0, 0.5, 0.0, 0.0]).error
        number = 3 / 8 * 5 / 8 / error**2  # independent samples whose share varies as much
        assert 4 < number < 8
        found = clustered_share([[1, 1], [1, 0], [0, 0], [0, 0]])
        assert found == pytest.approx((3 / 8, *wilson_interval(3 / 8 * number, number)))

    def test_it_never_counts_more_than_there_are(self):
        even = clustered_share([[1, 0]] * 10)  # less spread than chance would make
        assert even == (0.5, *wilson_interval(10, 20))
        nearly = clustered_share([[1, 0]] * 10 + [[1, 1]])
        assert nearly == pytest.approx((12 / 22, *wilson_interval(12, 22)))

    def test_it_covers_the_truth(self):
        draw, hits = random.Random(0), 0
        for _ in range(400):
            shares = [draw.betavariate(0.6, 1.4) for _ in range(46)]
            outcomes = [[float(draw.random() < p) for _ in range(4)] for p in shares]
            found = clustered_share(outcomes)
            hits += found.low <= 0.3 <= found.high
        assert 0.92 <= hits / 400 <= 0.98

    @pytest.mark.parametrize(
        ("outcomes", "message"),
        [([], "at least one cluster"), ([[1], []], "at least one"), ([[2]], "got 2.0 to 2.0")],
    )
    def test_bad_outcomes_are_named(self, outcomes, message):
        with pytest.raises(ValueError, match=message):
            clustered_share(outcomes)
