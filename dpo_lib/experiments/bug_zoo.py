"""Appendix E: ten one-line bugs. The library's own source with one line broken, trained for real.

``broken_library`` reads the modules of ``dpo_lib`` and the loop of ``bare_loop.py`` as text,
replaces one line, and executes the result as fresh modules beside the sound ones. Whatever a run
writes is then looked at with the sound library.

python -m dpo_lib.experiments.bug_zoo    writes dpo_lib/results/bug_zoo.json
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import nn

from dpo_lib.data import PreferenceDataset, PreferenceRecord, pad, split_by_prompt
from dpo_lib.evaluation import evaluate_margins, evaluate_samples
from dpo_lib.experiments.store import store
from dpo_lib.logprobs import get_token_log_probs
from dpo_lib.models import TinyGPT, load_base, load_sft, respond
from dpo_lib.world import (
    demonstrations,
    judge,
    label_by_reward,
    load_pairs,
    preference_prompts,
    world_tokenizer,
)

SEEDS = range(5)
SETTINGS = {"beta": 1.0, "learning_rate": 2e-4, "steps": 100, "batch_size": 32, "every": 25}
HELD_OUT_SHARE = 0.2  # of the prompts
SAMPLING = {"per_prompt": 8, "seed": 77}  # the same random numbers for every policy
FINE_TUNING = {"texts": 4000, "steps": 150, "batch_size": 32, "learning_rate": 1e-3}
SAMPLE_SEED = 3
BIN = 5  # updates of which the stored curves are means
DROPOUT = 0.1  # of the policy, wherever it is switched on
# In the order of their imports: a fresh module sees the fresh ones before it.
MODULES = {
    "logprobs": "dpo_lib.logprobs",
    "losses": "dpo_lib.losses",
    "records": "dpo_lib.data.records",
    "data": "dpo_lib.data",
    "tokenizers": "dpo_lib.models.tokenizers",
    "reference": "dpo_lib.reference",
    "scores": "dpo_lib.scores",
    "evaluation": "dpo_lib.evaluation",
    "bare_loop": "dpo_lib.experiments.bare_loop",
}
# Classes of what is handed in: the fresh modules ask for them by `isinstance`.
SHARED = {"PreferenceRecord", "UnpairedRecord"}


@dataclass(frozen=True)
class Bug:
    """One line of one module, as it stands and as it is broken."""

    name: str
    title: str
    module: str
    line: str
    broken: str

    def apply(self, source: str) -> str:
        """Break the line in the source of its module, in which it must stand exactly once."""
        if (times := source.count(self.line)) != 1:
            raise ValueError(f"{self.name}: the line stands {times} times in {self.module}")
        return source.replace(self.line, self.broken)

    @property
    def diff(self) -> str:
        """The change, as a diff shows it."""
        return f"# {self.module.replace('.', '/')}.py\n- {self.line}\n+ {self.broken}"


BUGS = (
    Bug(
        "slice",
        "Wrong slice",
        "dpo_lib.logprobs",
        "return _call(model, tokens, extra)[:, prompt_len - 1 : -1]",
        "return _call(model, tokens, extra)[:, prompt_len:]",
    ),
    Bug(
        "prompt",
        "Prompt in the mask",
        "dpo_lib.logprobs",
        "logits = _response_logits(model, tokens, mask, prompt.shape[1])  # (B, R, V)",
        "response, response_mask, logits = (\n"
        "        tokens[:, 1:], mask[:, 1:], _response_logits(model, tokens, mask, 1))",
    ),
    Bug(
        "pads",
        "Pads in the sum",
        "dpo_lib.logprobs",
        "return _gather_log_probs(logits, response).masked_fill(~response_mask, 0.0)  # (B, R)",
        "return _gather_log_probs(logits, response)  # (B, R)",
    ),
    Bug(
        "eos",
        "No EOS",
        "dpo_lib.models.tokenizers",
        "return [*self.encode(text), self.eos_id]",
        "return self.encode(text)",
    ),
    Bug(
        "dropout",
        "Dropout on in the policy",
        "dpo_lib.experiments.bare_loop",
        "policy.eval()",
        "policy.train()",
    ),
    Bug(
        "reference",
        "Reference not frozen",
        "dpo_lib.experiments.bare_loop",
        "reference = make_reference(policy)",
        "reference = policy",
    ),
    Bug(
        "dtype",
        "Reference in another dtype",
        "dpo_lib.experiments.bare_loop",
        "reference = make_reference(policy)",
        "reference = make_reference(policy).to(torch.bfloat16)",
    ),
    Bug(
        "swap",
        "Chosen and rejected swapped",
        "dpo_lib.logprobs",
        'for side in ("chosen", "rejected"):',
        'for side in ("rejected", "chosen"):',
    ),
    Bug(
        "mean",
        "Mean for sum",
        "dpo_lib.logprobs",
        ").sum(dim=-1)  # (B,)",
        ").mean(dim=-1)  # (B,)",
    ),
    Bug(
        "axis",
        "Log-softmax over the wrong axis",
        "dpo_lib.logprobs",
        "return chosen - logits.logsumexp(dim=-1)  # (B, R)",
        "return logits.log_softmax(dim=1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)",
    ),
)
SOUND = "sound"
NAMES = (SOUND, *(bug.name for bug in BUGS))


def bug(name: str) -> Bug:
    """The bug of that name."""
    return next(bug for bug in BUGS if bug.name == name)


@contextmanager
def _replaced(modules: Mapping[str, ModuleType]) -> Iterator[None]:
    """Let these modules be the ones that imports find."""
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module


def broken_library(specimen: str | Bug) -> SimpleNamespace:
    """Fresh modules, by their names in `MODULES`, with one line of one of them broken."""
    if specimen != SOUND and isinstance(specimen, str):
        specimen = bug(specimen)
    fresh: dict[str, ModuleType] = {}
    for path in MODULES.values():
        sound = import_module(path)
        source = inspect.getsource(sound)
        if isinstance(specimen, Bug) and specimen.module == path:
            source = specimen.apply(source)
        module = ModuleType(path)
        module.__file__ = sound.__file__
        with _replaced({**fresh, path: module}):
            exec(compile(source, f"<{path}, a copy>", "exec"), module.__dict__)
        for name in SHARED & vars(module).keys():
            setattr(module, name, getattr(sound, name))
        fresh[path] = module
    return SimpleNamespace(**{name: fresh[path] for name, path in MODULES.items()})


def split(seed: int) -> tuple[list[PreferenceRecord], list[PreferenceRecord]]:
    """Labeled pairs to train on, and those of the held-out prompts."""
    records = label_by_reward(load_pairs(), seed)
    return split_by_prompt(records, HELD_OUT_SHARE, seed)


def new_policy() -> TinyGPT:
    """The SFT model, able to drop features in training mode; in eval mode it is the same."""
    sft = load_sft()
    policy = TinyGPT(replace(sft.config, dropout=DROPOUT)).to(torch.float64)
    policy.load_state_dict(sft.state_dict())
    return policy.eval()


def measure(policy: nn.Module, held_out: PreferenceDataset) -> dict[str, float]:
    """What the sound library sees: the order of held-out pairs, and what the policy writes."""
    training, sft = policy.training, load_sft()
    policy.eval()
    margins = evaluate_margins(policy, sft, held_out, SETTINGS["beta"])
    prompts = preference_prompts()
    written = evaluate_samples(policy, world_tokenizer(), prompts, sft, judge=judge, **SAMPLING)
    batch = held_out.batch()
    with torch.no_grad():
        tokens = get_token_log_probs(
            policy, batch["prompt"], batch["chosen"], batch["prompt_mask"], batch["chosen_mask"]
        )  # (N, R)
    ends = batch["chosen_mask"].sum(dim=1, keepdim=True) - 1  # (N, 1), where EOS stands
    policy.train(training)
    return {
        "accuracy": margins.accuracy,
        "chosen": margins.chosen_shift,
        "rejected": margins.rejected_shift,
        "true_reward": written.true_reward.mean,
        "kl": written.kl.k1.mean,
        "malformed": written.malformed,
        "length": written.length,
        "eos": tokens.gather(1, ends).mean().item(),
    }


def run(
    name: str, seed: int, steps: int = SETTINGS["steps"]
) -> tuple[nn.Module, list[dict[str, float]], list[dict[str, float]]]:
    """Train one specimen; return the policy, its rows of updates and its rows of looks."""
    library = broken_library(name)
    tokenizer = library.tokenizers.WordTokenizer(world_tokenizer().words[2:])
    training, unseen = split(seed)
    held_out = PreferenceDataset(unseen, world_tokenizer())
    policy = new_policy()
    torch.manual_seed(seed)  # of dropout, and of nothing else
    updates, looks = library.bare_loop.train(
        policy,
        tokenizer,
        training,
        unseen,
        lambda: measure(policy, held_out),
        **{**SETTINGS, "steps": steps},
        seed=seed,
    )
    return policy.eval(), updates, looks


def evidence(name: str, seed: int) -> dict[str, Any]:
    """What a reader would print of the first batch: the reference's mean score, and a text."""
    library = broken_library(name)
    tokenizer = library.tokenizers.WordTokenizer(world_tokenizer().words[2:])
    dataset = library.data.PreferenceDataset(split(seed)[0], tokenizer)
    batch = next(dataset.batches(SETTINGS["batch_size"], 1, seed))
    with torch.no_grad():
        chosen, _ = library.logprobs.get_pair_log_probs(load_sft(), batch)
    kept = batch["chosen"][0][batch["chosen_mask"][0] > 0]
    return {"reference_logp": chosen.mean().item(), "scored": tokenizer.decode(kept, True)}


def row(
    name: str, seed: int, updates: Sequence[Mapping[str, float]], looks: Sequence[Mapping]
) -> dict[str, Any]:
    """The stored form of a run: the first update, means over ``BIN`` updates, and the looks."""
    bins = [updates[i : i + BIN] for i in range(0, len(updates), BIN)]
    return {
        "bug": name,
        "seed": seed,
        **evidence(name, seed),
        "first": updates[0],
        "updates": {
            key: [round(sum(u[key] for u in some) / len(some), 5) + 0.0 for some in bins]
            for key in updates[0]
        },
        "looks": {
            key: [round(float(look[key]), 5) + 0.0 for look in looks]
            for key in looks[0]
            if key != "step"
        },
    }


def fine_tune(name: str, seed: int) -> dict[str, Any]:
    """The stage before: train the base model on demonstrations, encoded with or without EOS."""
    library = broken_library(name)
    tokenizer = library.tokenizers.WordTokenizer(world_tokenizer().words[2:])
    texts = demonstrations(FINE_TUNING["texts"], seed)
    rows = [(tokenizer.encode_prompt(x), tokenizer.encode_response(y)) for x, y in texts]
    model, generator = load_base(), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=FINE_TUNING["learning_rate"])
    for _ in range(FINE_TUNING["steps"]):
        drawn = torch.randint(len(rows), (FINE_TUNING["batch_size"],), generator=generator)
        prompts, responses = zip(*(rows[i] for i in drawn.tolist()), strict=True)
        prompt, prompt_mask = pad(prompts, tokenizer.pad_id, "left")
        response, mask = pad(responses, tokenizer.pad_id, "right")
        logps = get_token_log_probs(model, prompt, response, prompt_mask, mask)  # (B, R)
        optimizer.zero_grad()
        (-logps.sum() / mask.sum()).backward()
        optimizer.step()
    written = evaluate_samples(
        model, world_tokenizer(), preference_prompts(), judge=judge, **SAMPLING
    )
    return {
        "bug": name,
        "seed": seed,
        "true_reward": written.true_reward.mean,
        "malformed": written.malformed,
        "length": written.length,
        "sample": respond(model, world_tokenizer(), ["My order is late."], seed=SAMPLE_SEED)[
            0
        ].text,
    }


def settings() -> dict[str, Any]:
    """What the stored rows depend on, the bugs themselves included."""
    return {
        **SETTINGS,
        "seeds": list(SEEDS),
        "held_out_share": HELD_OUT_SHARE,
        "sampling": SAMPLING,
        "bin": BIN,
        "dropout": DROPOUT,
        "bugs": {bug.name: [bug.module, bug.line, bug.broken] for bug in BUGS},
    }


def main() -> None:
    """Train every specimen with every seed, and store the rows."""
    torch.set_num_threads(1)
    rows = []
    for name in NAMES:
        for seed in SEEDS:
            _, updates, looks = run(name, seed)
            rows.append(row(name, seed, updates, looks))
            print(name, seed, {k: v[-1] for k, v in rows[-1]["looks"].items()}, flush=True)
    store("bug_zoo", settings(), rows)
    tuned = [fine_tune(name, seed) for name in (SOUND, "eos") for seed in SEEDS]
    store("bug_zoo_sft", {**FINE_TUNING, "sampling": SAMPLING}, tuned)


if __name__ == "__main__":
    main()
