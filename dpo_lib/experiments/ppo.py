"""Appendix C: PPO on the tiny world, against the true reward and against a learned reward model.

Four models of one size: policy, value, reward, reference. All start from the SFT model; value and
reward model have a head of one number in place of the vocabulary. A seed has the pairs, prompts
and evaluation of preference_runs.py, whose runs of DPO at beta = 1 and update 100 stand beside
these: same labels, same goal (reward minus one KL). The settings were chosen on seed 9.

python -m dpo_lib.experiments.ppo    writes dpo_lib/results/ppo.json
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dpo_lib.data import PreferenceDataset, pad
from dpo_lib.evaluation import evaluate_samples
from dpo_lib.experiments import preference_runs
from dpo_lib.experiments.store import store
from dpo_lib.logprobs import get_token_log_probs
from dpo_lib.models import load_sft, respond, sample
from dpo_lib.preference import preference_nll
from dpo_lib.reference import make_reference
from dpo_lib.rewards import reward_accuracy
from dpo_lib.world import judge, preference_prompts, world_tokenizer

SEEDS = range(5)
REWARDS = ["true", "learned"]
SAMPLING = preference_runs.SAMPLING
SHOWN = "My order is late."
EVERY = 10  # iterations between evaluations
BEST_BETAS = [10.0, 4.0, 2.5, 1.5, 1.0, 0.7]


@dataclass(frozen=True)
class PPOConfig:
    """Settings of PPO; DPO has two of them, beta and the learning rate."""

    beta: float = 1.0  # weight of the KL penalty
    iterations: int = 40  # each with fresh replies
    replies: int = 64  # of an iteration
    epochs: int = 4  # updates on the replies of an iteration
    clip: float = 0.2  # the ratio of new to old probability counts up to 1 ± this
    discount: float = 0.95  # λ of generalized advantage estimation
    learning_rate: float = 2e-4  # of the policy
    value_rate: float = 1e-3  # learning rate of the value model
    max_grad_norm: float = 1.0
    max_new_tokens: int = 24


@dataclass(frozen=True)
class RewardConfig:
    """Settings of the reward model."""

    steps: int = 100
    batch_size: int = 32
    learning_rate: float = 2e-4
    head_rate: float = 1e-2  # of the head, which starts at zero


class Scorer(nn.Module):
    """The SFT model with one number at every position instead of logits."""

    def __init__(self) -> None:
        super().__init__()
        self.body = load_sft()
        self.head = nn.Linear(self.body.config.width, 1, dtype=torch.float64)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Scores (B, T), each of the text up to there."""
        return self.head(self.body.hidden_states(tokens, mask)).squeeze(-1)


def score(model: Scorer, prompt: Tensor, response: Tensor, *masks: Tensor) -> Tensor:
    """Reward (B,) of whole responses: the score at their last token."""
    scores = model(torch.cat([prompt, response], dim=1), torch.cat(masks, dim=1))
    last = prompt.shape[1] + masks[1].sum(dim=1, keepdim=True) - 1
    return scores.gather(1, last).squeeze(1)


def pair_scores(model: Scorer, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Rewards of the chosen and the rejected responses."""
    return tuple(
        score(model, batch["prompt"], batch[side], batch["prompt_mask"], batch[f"{side}_mask"])
        for side in ("chosen", "rejected")
    )


def train_reward_model(dataset: PreferenceDataset, seed: int, config: RewardConfig) -> Scorer:
    """Chapter 3 with a network for the scores: maximum likelihood of the labels."""
    model = Scorer()
    optimizer = torch.optim.Adam(
        [
            {"params": model.body.parameters(), "lr": config.learning_rate},
            {"params": model.head.parameters(), "lr": config.head_rate},
        ]
    )
    for batch in dataset.batches(config.batch_size, config.steps, seed):
        loss = preference_nll(*pair_scores(model, batch)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval().requires_grad_(False)


class Rollout(NamedTuple):
    """Replies of the policy of one iteration, and all that its updates need."""

    prompt: Tensor  # (B, P), with its mask
    prompt_mask: Tensor
    response: Tensor  # (B, R), with its mask
    mask: Tensor
    old_logps: Tensor  # (B, R), of the policy that wrote them
    advantage: Tensor  # (B, R)
    returns: Tensor  # (B, R), what the value model should have said
    reward: Tensor  # (B,)

    @property
    def texts(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """In the order in which log-probabilities are asked for."""
        return self.prompt, self.response, self.prompt_mask, self.mask


class PPO:
    """Policy and value model in training; reward and reference looking on."""

    def __init__(
        self, reward: Scorer | None, prompts: list[str], seed: int, config: PPOConfig
    ) -> None:
        self.config, self.prompts, self.tokenizer = config, prompts, world_tokenizer()
        self.policy, self.value, self.reward = load_sft(), Scorer(), reward
        self.reference = make_reference(self.policy)
        self.generator = torch.Generator().manual_seed(seed)
        self.adam = torch.optim.Adam(self.policy.parameters(), lr=config.learning_rate)
        self.value_adam = torch.optim.Adam(self.value.parameters(), lr=config.value_rate)

    def values(self, prompt: Tensor, response: Tensor, *masks: Tensor) -> Tensor:
        """What the value model expects before each token of the responses: (B, R)."""
        scores = self.value(torch.cat([prompt, response], dim=1), torch.cat(masks, dim=1))
        return scores[:, prompt.shape[1] - 1 : -1] * masks[1]

    def pay(self, asked: list[str], texts: tuple[Tensor, ...], finished: Tensor) -> Tensor:
        """The reward of each reply (B,)."""
        if self.reward is not None:
            return score(self.reward, *texts)
        words = [
            self.tokenizer.decode(ids[kept > 0].tolist())
            for ids, kept in zip(texts[1], texts[3], strict=True)
        ]
        judged = map(judge, asked, words, finished.tolist())
        return torch.tensor([verdict.reward for verdict in judged], dtype=torch.float64)

    @torch.no_grad()
    def roll_out(self) -> Rollout:
        """Draw prompts, let the policy answer, and see what each token was worth."""
        config, ids = self.config, self.tokenizer
        chosen = torch.randint(len(self.prompts), (config.replies,), generator=self.generator)
        asked = [self.prompts[i] for i in chosen.tolist()]
        prompt, prompt_mask = pad([ids.encode_prompt(x) for x in asked], ids.pad_id, "left")
        drawn = sample(
            self.policy, prompt, prompt_mask, config.max_new_tokens, generator=self.generator,
            eos_id=ids.eos_id, pad_id=ids.pad_id,
        )  # fmt: skip
        texts = prompt, drawn.tokens, prompt_mask, drawn.mask
        old = get_token_log_probs(self.policy, *texts)  # (B, R)
        kept = get_token_log_probs(self.reference, *texts)
        reward, values = self.pay(asked, texts, drawn.finished), self.values(*texts)
        paid = -config.beta * (old - kept) * drawn.mask  # the KL penalty, token by token
        last = drawn.mask.sum(dim=1, keepdim=True) - 1
        paid.scatter_add_(1, last, reward[:, None])  # the reward comes at the end
        advantage = _advantages(paid, values, drawn.mask, config.discount)
        return Rollout(
            prompt,
            prompt_mask,
            drawn.tokens,
            drawn.mask,
            old,
            advantage,
            advantage + values,
            reward,
        )

    def update(self, rollout: Rollout) -> None:
        """A step on the clipped surrogate, and one of the value model."""
        real = rollout.mask.bool()
        advantage = rollout.advantage[real]
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        new = get_token_log_probs(self.policy, *rollout.texts)
        ratio = (new - rollout.old_logps)[real].exp()
        clipped = ratio.clamp(1 - self.config.clip, 1 + self.config.clip)
        gain = torch.minimum(ratio * advantage, clipped * advantage).mean()
        self.step(self.adam, self.policy, -gain)
        missed = (self.values(*rollout.texts) - rollout.returns)[real]
        self.step(self.value_adam, self.value, (missed**2).mean())

    def step(self, optimizer: torch.optim.Optimizer, model: nn.Module, loss: Tensor) -> None:
        """One update of one model."""
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), self.config.max_grad_norm)
        optimizer.step()

    def iterate(self) -> float:
        """Replies, and the updates on them; returns their mean reward."""
        rollout = self.roll_out()
        for _ in range(self.config.epochs):
            self.update(rollout)
        return rollout.reward.mean().item()


def _advantages(paid: Tensor, values: Tensor, mask: Tensor, discount: float) -> Tensor:
    """Generalized advantage estimation without a discount of rewards: (B, R)."""
    ahead = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], dim=1)
    surprise = (paid + ahead - values) * mask  # (B, R)
    advantage, later = torch.zeros_like(values), torch.zeros_like(values[:, 0])
    for t in reversed(range(values.shape[1])):
        later = surprise[:, t] + discount * later
        advantage[:, t] = later
    return advantage


def measure(policy: nn.Module, reference: nn.Module) -> dict[str, Any]:
    """What the policy writes, as preference_runs.py measures it."""
    tokenizer = world_tokenizer()
    written = evaluate_samples(
        policy, tokenizer, preference_prompts(), reference, judge=judge, **SAMPLING
    )
    return {
        "true_reward": written.true_reward.mean,
        "kl": written.kl.k1.mean,
        "malformed": written.malformed,
        "correct": written.correct,
        "length": written.length,
        "sample": respond(policy, tokenizer, [SHOWN], seed=5)[0].text,
    }


def run(
    seed: int, reward: str, config: PPOConfig = PPOConfig(), every: int = EVERY, stop: int = 0
) -> list[dict[str, Any]]:
    """One run, or its first ``stop`` iterations; a row for each evaluation."""
    training, held_out = preference_runs.split(seed)
    prompts = list(dict.fromkeys(record.prompt for record in training.records))
    model, extra = None, {}
    if reward == "learned":
        model = train_reward_model(training, seed, RewardConfig())
        with torch.no_grad():
            scores = pair_scores(model, held_out.batch())
        extra["accuracy"] = reward_accuracy(*scores).item()  # of held-out pairs
    ppo, rows, paid = PPO(model, prompts, seed, config), [], []
    last = stop or config.iterations
    for iteration in range(last + 1):
        if iteration % every == 0:
            row = {"reward": reward, "seed": seed, "iteration": iteration} | extra
            row["paid"] = sum(paid[-every:]) / len(paid[-every:]) if paid else 0.0
            rows.append(row | measure(ppo.policy, ppo.reference))
        if iteration < last:
            paid.append(ppo.iterate())
    return rows


def frontier(per_prompt: int = 128) -> list[dict[str, float]]:
    """The best policies of appendix A, from weighted samples of the SFT model, for some betas."""
    tokenizer, totals = world_tokenizer(), []
    betas = torch.tensor(BEST_BETAS, dtype=torch.float64)[:, None]  # (K, 1)
    for i, prompt in enumerate(preference_prompts()):
        replies = respond(load_sft(), tokenizer, [prompt] * per_prompt, seed=1000 + i)
        judged = [judge(r.prompt, r.text, r.finished).reward for r in replies]
        rewards = torch.tensor(judged, dtype=torch.float64)  # (N,)
        tilted = rewards / betas  # (K, N)
        log_z = tilted.logsumexp(dim=1) - math.log(per_prompt)  # (K,)
        reward = tilted.softmax(dim=1) @ rewards  # (K,)
        totals.append(torch.stack([reward, reward / betas[:, 0] - log_z, log_z]))
    columns = torch.stack(totals).mean(dim=0).tolist()  # (3, K)
    names = ("beta", "true_reward", "kl", "log_z")
    return [dict(zip(names, row, strict=True)) for row in zip(BEST_BETAS, *columns, strict=True)]


def main() -> None:
    """Run every seed with both rewards, and store the rows."""
    torch.set_num_threads(1)
    rows = [row for reward in REWARDS for seed in SEEDS for row in run(seed, reward)]
    settings = {
        **asdict(PPOConfig()),
        "reward_model": asdict(RewardConfig()),
        "seeds": SEEDS,
        "sampling": SAMPLING,
        "frontier": frontier(),
    }
    store("ppo", settings, rows)


if __name__ == "__main__":
    main()
