"""Break the core on purpose, one line at a time, and see that its tests notice.

Usage: ``python tools/mutants.py [--jobs N] [words …]``; words choose mutants by their description.

Each mutant is one small change to a copy of the package in a temporary folder; the working tree is
never touched. The tests of the changed module run on the copy until the first one fails. First, as
a control, they must all pass on an unchanged copy. Exits 0 if every mutant was noticed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
TIME_LIMIT = 600  # seconds a mutant may run: one that hangs is noticed too
# Modules that stand in a package, and where in it.
PACKAGES = {"step": "training/step"}
ALL_LOSSES = tuple(
    f"losses/{name}.py" for name in ("facts", "test_losses", "test_form", "test_kto")
)
# Modules that have no test file of their own name.
TESTS = {
    "losses/dpo": ("losses/test_dpo.py",),
    **dict.fromkeys(("losses/form", "losses/relatives", "losses/unpaired"), ALL_LOSSES),
    "_validation": (
        "core/test_validation.py",
        *ALL_LOSSES,
        "core/test_rewards.py",
        "core/test_preference.py",
    ),
    "step": ("training/test_step.py",),
}


class Mutant(NamedTuple):
    """One change: in ``function`` of ``module``, the only occurrence of ``old`` becomes ``new``."""

    what: str
    module: str
    function: str
    old: str
    new: str

    @property
    def file(self) -> str:
        """Where the module stands, from the top."""
        return f"dpo_lib/{PACKAGES.get(self.module, self.module)}.py"

    @property
    def tests(self) -> tuple[str, ...]:
        """Test files that must notice."""
        return TESTS.get(self.module, (f"core/test_{self.module}.py",))

    def applied_to(self, source: str) -> str:
        """Return the changed source; refuse a change that no longer fits it."""
        if source.count(f"\ndef {self.function}(") != 1:
            raise ValueError(f"{self.what}: {self.module}.py has no function {self.function}")
        start = source.index(f"\ndef {self.function}(")
        end = source.find("\n\n\n", start)
        body = source[start:end]
        if body.count(self.old) != 1:
            raise ValueError(
                f"{self.what}: {self.old!r} stands {body.count(self.old)} times in {self.function}"
            )
        return source[:start] + body.replace(self.old, self.new) + source[end:]


MUTANTS = [
    # what the scores mean
    Mutant("probability of the loser", "preference", "bradley_terry_probability",
           "sigmoid(_score", "sigmoid(-_score"),
    Mutant("loss with the sign flipped", "preference", "preference_nll",
           "-difference", "difference"),
    Mutant("log of a rounded sigmoid", "preference", "preference_nll",
           "F.softplus(-difference, threshold=40.0)", "-torch.log(torch.sigmoid(difference))"),
    Mutant("softplus at its default threshold", "preference", "preference_nll",
           ", threshold=40.0", ""),
    Mutant("sampled winners lose", "preference", "sample_comparisons",
           "draws < probability", "draws > probability"),
    Mutant("items meet themselves", "preference", "sample_comparisons",
           "torch.randint(1, n_items", "torch.randint(0, n_items"),
    Mutant("wins counted as losses", "preference", "_count_wins",
           "(winners.long(), losers.long())", "(losers.long(), winners.long())"),
    Mutant("repeated wins counted once", "preference", "_count_wins",
           "accumulate=True", "accumulate=False"),
    Mutant("a disconnected set of items is fitted", "preference", "_check_strongly_connected",
           "if not reach.all()", "if False"),
    # which tokens are scored
    Mutant("off-by-one slice", "logprobs", "_response_logits",
           "extra)[:, prompt_len - 1 : -1]", "extra)[:, prompt_len:]"),
    Mutant("off-by-one slice of kept logits", "logprobs", "_response_logits",
           "logits[:, -response_len - 1 : -1]", "logits[:, -response_len:]"),
    Mutant("off-by-one slice of moved rows", "logprobs", "_response_logits",
           "order.argsort(dim=1)[:, prompt_len - 1 : -1]", "order.argsort(dim=1)[:, prompt_len:]"),
    Mutant("prompt unmasked: its tokens are scored too", "logprobs", "get_token_log_probs",
           "    logits = _response_logits(model, tokens, mask, prompt.shape[1])",
           "    response, response_mask = tokens[:, 1:], mask[:, 1:]\n"
           "    logits = _response_logits(model, tokens, mask, 1)"),
    Mutant("prompt pads read as text", "logprobs", "get_token_log_probs",
           "[prompt_mask, response_mask]", "[torch.ones_like(prompt_mask), response_mask]"),
    Mutant("pads counted", "logprobs", "get_token_log_probs",
           ".masked_fill(~response_mask, 0.0)", ""),
    Mutant("the id of a pad matters", "logprobs", "_check_tokens",
           "tokens.masked_fill(~real, 0), real", "tokens, real"),
    Mutant("first token only", "logprobs", "get_sequence_log_probs",
           ".sum(dim=-1)", "[:, 0]"),
    Mutant("mean for sum", "logprobs", "get_sequence_log_probs",
           ".sum(dim=-1)", ".mean(dim=-1)"),
    Mutant("chosen and rejected swapped", "logprobs", "get_pair_log_probs",
           'in ("chosen", "rejected"):', 'in ("rejected", "chosen"):'),
    Mutant("one mask for both responses", "logprobs", "get_pair_log_probs",
           'batch.get(f"{side}_mask")', 'batch.get("chosen_mask")'),
    # what the model is told
    Mutant("no attention mask", "logprobs", "_response_logits",
           "if takes.attention_mask:", "if False:"),
    Mutant("position ids not passed", "logprobs", "_response_logits",
           "if takes.position_ids:", "if False:"),
    Mutant("pads take positions", "logprobs", "_response_logits",
           "mask.cumsum(dim=1) - 1", "torch.ones_like(mask).cumsum(dim=1) - 1"),
    Mutant("positions below zero", "logprobs", "_response_logits", ".clamp(min=0)", ""),
    Mutant("left pads go into a model without masks", "logprobs", "_response_logits",
           "if padded_left and", "if False and"),
    Mutant("pads use up the context", "logprobs", "_response_logits",
           "order[:, :longest]", "order"),
    Mutant("all logits asked for", "logprobs", "_response_logits",
           "if takes.logits_to_keep:", "if False:"),
    Mutant("cache left on", "logprobs", "_response_logits",
           '"use_cache"] = False', '"use_cache"] = True'),
    # in what precision and memory
    Mutant("log-probs in half precision", "logprobs", "_gather_log_probs",
           "if logits.dtype in (torch.float16, torch.bfloat16):", "if False:"),
    Mutant("float64 rounded to float32", "logprobs", "_gather_log_probs",
           "if logits.dtype in (torch.float16, torch.bfloat16):", "if True:"),
    Mutant("full log-softmax", "logprobs", "_gather_log_probs",
           "chosen - logits.logsumexp(dim=-1)",
           "logits.log_softmax(dim=-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)"),
    Mutant("not normalized", "logprobs", "_gather_log_probs", " - logits.logsumexp(dim=-1)", ""),
    # which tokens are refused
    Mutant("empty responses accepted", "logprobs", "_check_tokens", "if len(empty):", "if False:"),
    Mutant("pads between tokens accepted", "logprobs", "_check_tokens",
           "if len(wrong):", "if False:"),
    Mutant("broken masks accepted", "logprobs", "_check_tokens",
           "if (real != mask).any():", "if False:"),
    Mutant("too long accepted", "logprobs", "_check_context", "length > limit", "False"),
    Mutant("a full context refused", "logprobs", "_check_context",
           "length > limit", "length >= limit"),
    Mutant("unknown ids accepted", "logprobs", "_check_vocabulary", "high >= end", "False"),
    Mutant("negative ids accepted", "logprobs", "_check_vocabulary", "low < 0", "False"),
    Mutant("unequal batches accepted", "logprobs", "get_token_log_probs",
           "if len(prompt) != len(response):", "if False:"),
    # the reward
    Mutant("beta ignored", "rewards", "dpo_reward",
           'check_positive(beta, "beta") *', "1.0 *"),
    Mutant("reference ignored", "rewards", "dpo_reward", "(policy - reference)", "policy"),
    Mutant("reward with the sign flipped", "rewards", "dpo_reward",
           "(policy - reference)", "(reference - policy)"),
    Mutant("ties counted as 1", "rewards", "reward_accuracy", "0.5 * ", "1.0 * "),
    Mutant("ties counted as 0", "rewards", "reward_accuracy", "0.5 * ", "0.0 * "),
    Mutant("accuracy of the loser", "rewards", "reward_accuracy",
           "difference > tie", "difference < -tie"),
    Mutant("near ties counted as wins", "rewards", "reward_accuracy",
           "difference > tie", "difference > 0"),
    # the reference
    Mutant("reference not frozen", "reference", "make_reference", ".requires_grad_(False)", ""),
    Mutant("dropout left on", "reference", "make_reference", ".eval()", ""),
    Mutant("reference is the policy", "reference", "make_reference",
           "copy.deepcopy(policy)", "policy"),
    Mutant("reference shares the policy's memory", "reference", "make_reference",
           "copy.deepcopy(policy)", "copy.copy(policy)"),
    Mutant("fingerprint without the values", "reference", "fingerprint",
           "tensor.detach().cpu()", "torch.zeros_like(tensor).cpu()"),
    Mutant("fingerprint of the shapes alone", "reference", "fingerprint",
           "{name} {tuple(tensor.shape)}", "{tuple(tensor.shape)}"),
    Mutant("train mode goes unseen", "reference", "assert_reference_invariants",
           "if module.training:", "if False:"),
    Mutant("gradients go unseen", "reference", "assert_reference_invariants",
           "if parameter.requires_grad or parameter.grad is not None:", "if False:"),
    Mutant("shared memory goes unseen", "reference", "assert_reference_invariants",
           "if parameter.untyped_storage().data_ptr() in policy_storage:", "if False:"),
    Mutant("an optimizer over the reference goes unseen", "reference",
           "assert_reference_invariants", "if id(parameter) in trained:", "if False:"),
    Mutant("a changed reference goes unseen", "reference", "assert_reference_invariants",
           "fingerprint(reference) != start", "False"),
    Mutant("another start goes unseen", "reference", "assert_reference_invariants",
           "fingerprint(policy) != fingerprint(reference)", "False"),
    # the loss
    Mutant("labels swapped", "losses/dpo", "dpo_loss",
           "margin = chosen_rewards - rejected_rewards",
           "margin = rejected_rewards - chosen_rewards"),
    Mutant("label smoothing swapped", "losses/dpo", "dpo_loss",
           "losses = (1 - epsilon) * nll", "losses = epsilon * nll"),
    Mutant("label smoothing on one side only", "losses/dpo", "dpo_loss",
           "if epsilon > 0:", "if False:"),
    Mutant("label smoothing ignored", "losses/dpo", "dpo_loss",
           "epsilon = check_label_smoothing(label_smoothing)", "epsilon = 0.0"),
    Mutant("beta has another default", "losses/dpo", "dpo_loss",
           "beta: float = 0.1", "beta: float = 1"),
    Mutant("references of the two responses mixed up", "losses/dpo", "dpo_loss",
           "(policy_chosen - reference_chosen)", "(policy_chosen - reference_rejected)"),
    Mutant("rewards carry gradients", "losses/dpo", "dpo_loss",
           "chosen_rewards.detach()", "chosen_rewards"),
    Mutant("naive loss uses the reference", "losses/dpo", "naive_loss",
           "*flat", "*reference"),
    # its relatives
    Mutant("cDPO does not smooth", "losses/relatives", "cdpo_loss",
           "(1 - label_smoothing) * nll(margin)", "nll(margin)"),
    Mutant("cDPO has another default", "losses/relatives", "cdpo_loss",
           "label_smoothing: float = 0.1", "label_smoothing: float = 0.2"),
    Mutant("robust DPO is conservative DPO", "losses/relatives", "robust_dpo_loss",
           "- epsilon * nll(-margin)", "+ epsilon * nll(-margin)"),
    Mutant("robust DPO is not rescaled", "losses/relatives", "robust_dpo_loss",
           " / (1 - 2 * epsilon)", ""),
    Mutant("IPO on the reward margin", "losses/relatives", "ipo_loss",
           "(chosen - rejected - 1", "(beta * (chosen - rejected) - 1"),
    Mutant("IPO aims at 1 / tau", "losses/relatives", "ipo_loss",
           "- 1 / (2 * beta)).square", "- 1 / beta).square"),
    Mutant("hinge at 0", "losses/relatives", "hinge_loss", "torch.relu(1 - (", "torch.relu(0 - ("),
    Mutant("an offset helps", "losses/relatives", "odpo_loss", "- offset)", "+ offset)"),
    Mutant("length rewarded for priced", "losses/relatives", "r_dpo_loss",
           "beta * chosen + alpha", "beta * chosen - alpha"),
    Mutant("price of the chosen length only", "losses/relatives", "r_dpo_loss",
           "beta * rejected + alpha * rejected_lengths", "beta * rejected"),
    Mutant("SimPO's margin helps", "losses/relatives", "simpo_loss",
           "rejected + gamma", "rejected - gamma"),
    Mutant("ORPO fine-tunes on the rejected", "losses/relatives", "orpo_loss",
           "(rejected)) - chosen", "(rejected)) - rejected"),
    Mutant("ORPO without its weight", "losses/relatives", "orpo_loss", "beta * nll", "nll"),
    Mutant("probability for odds", "losses/relatives", "_log_odds",
           "return log_prob - torch.log(-torch.expm1(log_prob))", "return log_prob"),
    Mutant("odds lose their digits", "losses/relatives", "_log_odds",
           "-torch.expm1(log_prob)", "1 - torch.exp(log_prob)"),
    Mutant("odds of a certain response infinite", "losses/relatives", "_log_odds",
           "log_prob = log_prob.clamp(max=-torch.finfo(log_prob.dtype).eps)", "pass"),
    Mutant("KTO wants the chosen below its level", "losses/relatives", "kto_loss",
           "level - chosen", "chosen - level"),
    Mutant("KTO sums a pair", "losses/relatives", "kto_loss", "undesirable) / 2", "undesirable)"),
    Mutant("KTO's sigmoid rounds to 1", "losses/relatives", "kto_loss",
           "torch.sigmoid(beta * (level - chosen))",
           "(1 - torch.sigmoid(beta * (chosen - level)))"),
    Mutant("KTO's weights mixed up", "losses/relatives", "kto_loss",
           "undesirable_weight * torch", "desirable_weight * torch"),
    Mutant("gradient through KTO's level", "losses/relatives", "_level",
           "(chosen + rejected).detach()", "(chosen + rejected)"),
    Mutant("KTO's level below 0", "losses/relatives", "_level", ".clamp(min=0)", ""),
    Mutant("KTO's level from the chosen only", "losses/relatives", "_level",
           "(chosen + rejected)", "(chosen + chosen)"),
    Mutant("APO-down takes the chosen up", "losses/relatives", "apo_down_loss",
           "torch.sigmoid(beta * chosen)", "torch.sigmoid(-beta * chosen)"),
    Mutant("BCO shifts one side only", "losses/relatives", "bco_loss",
           "nll(shift - beta", "nll(-beta"),
    Mutant("NCA lets the chosen run away", "losses/relatives", "nca_loss",
           "nll(-beta * chosen) / 2 + ", ""),
    Mutant("SPPO has one target for both", "losses/relatives", "sppo_loss",
           "(rejected + 1", "(rejected - 1"),
    Mutant("Cal-DPO compares rewards", "losses/relatives", "cal_dpo_loss",
           "nll(chosen - rejected)", "nll(beta * chosen - beta * rejected)"),
    Mutant("DPOP punishes a likelier winner", "losses/relatives", "dpop_loss",
           "torch.relu(-beta", "torch.relu(beta"),
    Mutant("DPOP rewards a lost winner", "losses/relatives", "dpop_loss",
           "chosen - penalty", "chosen + penalty"),
    Mutant("forward KL turned around", "losses/relatives", "forward_kl_dpo_loss",
           "_exp(-rejected) - _exp(-chosen)", "_exp(chosen) - _exp(rejected)"),
    Mutant("the order of a divergence forgotten", "losses/relatives", "alpha_dpo_loss",
           " / order)", ")"),
    Mutant("χPO without its logarithm", "losses/relatives", "chi_po_loss",
           "(chosen - rejected) + (", "("),
    Mutant("exponents overflow", "losses/relatives", "_exp", "x.clamp(max=60.0)", "x"),
    Mutant("RPO unlearns the chosen", "losses/relatives", "rpo_loss", "- alpha *", "+ alpha *"),
    Mutant("RPO fine-tunes on the sum", "losses/relatives", "rpo_loss",
           "* chosen_mean", "* chosen"),
    Mutant("MPO's weights mixed up", "losses/relatives", "mpo_loss",
           "preference * which", "quality * which"),
    Mutant("gradient through WPO's weight", "losses/relatives", "wpo_loss", ".detach()", ""),
    Mutant("the level below 0", "losses/unpaired", "mismatched_level", ".clamp(min=0)", ""),
    Mutant("thumbs turned around", "losses/unpaired", "unpaired_kto_loss",
           "torch.where(thumbs, good * up, bad * down)",
           "torch.where(thumbs, bad * down, good * up)"),
    Mutant("the level of thumbs below 0", "losses/unpaired", "unpaired_kto_loss",
           ".clamp(min=0)", ""),
    # their form
    Mutant("sums for means", "losses/form", "on_mean_log_ratios",
           "((pc - rc) / nc, (pr - rr) / nr)", "(pc - rc, pr - rr)"),
    Mutant("lengths of the two responses mixed up", "losses/form", "on_mean_log_ratios",
           "((pc - rc) / nc, (pr - rr) / nr)", "((pc - rc) / nr, (pr - rr) / nc)"),
    Mutant("SimPO sees the reference", "losses/form", "on_mean_log_probs",
           "(pc / nc, pr / nr)", "((pc - rc) / nc, pr / nr)"),
    Mutant("rewards of the relatives carry gradients", "losses/form", "_loss", "x.detach()", "x"),
    Mutant("log-ratio of the chosen against the other reference", "losses/form", "on_log_ratios",
           "(pc - rc,", "(pc - rr,"),
    Mutant("gradient through a given level", "losses/form", "_check_offset",
           "as_float_tensor(value, name).detach()", "as_float_tensor(value, name)"),
    Mutant("length 0 accepted", "losses/form", "_check_lengths", "(lengths < 1)", "(lengths < 0)"),
    Mutant("half a token accepted", "losses/form", "_check_lengths",
           "lengths != lengths.round()", "False"),
    Mutant("lengths of another shape broadcast", "losses/form", "_check_lengths",
           "check_same_shape(policy_chosen_logps=logps, **{name: lengths})", "pass"),
    Mutant("lengths turn float32 into float64", "losses/form", "_check_lengths",
           "lengths.to(logps)", "lengths"),
    Mutant("a negative weight accepted", "losses/form", "_check_weight", " or weight < 0", ""),
    Mutant("lengths never passed", "losses/form", "takes_lengths",
           "LENGTHS[0] in", '"lengths" in'),
    Mutant("a declaration hidden by options", "losses/form", "_bare",
           "while isinstance(loss, functools.partial):", "while False:"),
    Mutant("a sum hides its coupling", "losses/form", "weighted_sum",
           "any(looks_across_pairs(term) for term, _ in terms)", "False"),
    Mutant("a sum forgets its weights", "losses/form", "weighted_sum", "weight * part", "part"),
    # the step
    Mutant("reference log-probs with gradients", "step", "dpo_training_step",
           "with torch.no_grad():", "with torch.enable_grad():"),
    Mutant("reference log-probs from the policy", "step", "dpo_training_step",
           "get_pair_log_probs(ref_model, batch)", "get_pair_log_probs(policy_model, batch)"),
    Mutant("beta not passed on", "step", "dpo_training_step",
           "reference_rejected, beta\n", "reference_rejected\n"),
    Mutant("zero_grad missing", "step", "dpo_training_step", "optimizer.zero_grad()", "pass"),
    Mutant("zero_grad after backward", "step", "dpo_training_step",
           "loss.backward()", "loss.backward(); optimizer.zero_grad()"),
    Mutant("no update", "step", "dpo_training_step", "optimizer.step()", "pass"),
    Mutant("sum over pairs for mean", "step", "dpo_training_step",
           "losses.mean()", "losses.sum()"),
    Mutant("ascent for descent", "step", "dpo_training_step",
           "loss.backward()", "(-loss).backward()"),
    Mutant("gradients dropped before the checks", "step", "dpo_training_step",
           "    policy_chosen, policy_rejected = ",
           "    optimizer.zero_grad()\n    policy_chosen, policy_rejected = "),
    Mutant("the policy as its own reference", "step", "dpo_training_step",
           "if ref_model is policy_model:", "if False:"),
    Mutant("accuracy of the rejected", "step", "dpo_training_step",
           "reward_accuracy(chosen_rewards, rejected_rewards)",
           "reward_accuracy(rejected_rewards, chosen_rewards)"),
    # bad input
    Mutant("NaN accepted", "_validation", "check_finite",
           "bad = ~torch.isfinite(values)", "bad = torch.zeros_like(values).bool()"),
    Mutant("log-probs above 0 accepted", "_validation", "check_log_probs",
           "values > LOG_PROB_SLACK", "values > 1e9"),
    Mutant("gathered checks never looked at", "_validation", "checked_at_once",
           "checks.settle()", "pass"),
    Mutant("checks within a block made one by one", "_validation", "refuse",
           "if checks is not None:", "if False:"),
    Mutant("shapes broadcast", "_validation", "check_same_shape", "if len(", "if False and len("),
    Mutant("beta 0 accepted", "_validation", "check_positive", "0.0 < number", "0.0 <= number"),
    Mutant("beta infinite accepted", "_validation", "check_positive",
           '< float("inf")', '<= float("inf")'),
    Mutant("label smoothing 0.5 accepted", "_validation", "check_label_smoothing",
           "< 0.5", "<= 0.5"),
    Mutant("text taken for a number", "_validation", "as_number",
           "if isinstance(value, str):", "if False:"),
    Mutant("Python numbers in float32", "_validation", "as_float_tensor",
           "else torch.float64\n", "else torch.float32\n"),
]  # fmt: skip


class Outcome(NamedTuple):
    """What the tests said: ``noticed_by`` is empty if they all passed."""

    noticed_by: str
    seconds: float


class _FirstFailure:
    """Pytest plugin: remember the first test that fails."""

    name = ""

    def pytest_runtest_logreport(self, report) -> None:
        if report.failed and not self.name:
            self.name = report.nodeid.removeprefix("tests/")

    def pytest_collectreport(self, report) -> None:
        if report.failed and not self.name:
            self.name = "(import fails)"


def prepare() -> None:
    """Import what is slow to import, once, before the forks."""
    sys.dont_write_bytecode = True
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # they take longer than a mutant
    import hypothesis.strategies  # noqa: F401
    import pytest  # noqa: F401
    import torch

    torch.set_num_threads(1)
    torch.optim.SGD([torch.zeros(1)])  # imports more, on first use


def _run_tests(folder: str, tests: tuple[str, ...]) -> None:
    """Run in a process of its own: test the copy in ``folder`` and write the outcome there."""
    import pytest

    os.chdir(folder)
    with open("log.txt", "w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    sys.path.insert(0, folder)
    first = _FirstFailure()
    options = ["-x", "-q", "-p", "no:cacheprovider", *(f"tests/{name}" for name in tests)]
    code = int(pytest.main(options, plugins=[first]))
    tested = Path(sys.modules["dpo_lib"].__file__).resolve().parent.parent
    if tested != Path(folder).resolve():
        code = -1  # the tests imported another copy: their word is worth nothing
    Path("outcome.json").write_text(json.dumps({"code": code, "first": first.name}))


def try_tests(tests: tuple[str, ...], mutant: Mutant | None = None) -> Outcome:
    """Copy package and tests, apply the mutant if there is one, and run the tests on the copy."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        ignore = shutil.ignore_patterns("__pycache__", "node_modules")
        shutil.copytree(ROOT / "dpo_lib", Path(folder, "dpo_lib"), ignore=ignore)
        for name in ("helpers.py", *tests):
            copy = Path(folder, "tests", name)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / "tests" / name, copy)
        shutil.copy(ROOT / "pyproject.toml", folder)
        if mutant:
            path = Path(folder, mutant.file)
            path.write_text(mutant.applied_to(path.read_text()))
        # A fork has torch and pytest imported already, and nothing of dpo_lib.
        process = multiprocessing.get_context("fork").Process(
            target=_run_tests, args=(folder, tests)
        )
        process.start()
        process.join(TIME_LIMIT)
        if process.is_alive():
            process.kill()
            process.join()
            return Outcome("(time ran out)", time.perf_counter() - start)
        outcome = Path(folder, "outcome.json")
        result = json.loads(outcome.read_text()) if outcome.exists() else {"code": -2}
        if result["code"] not in (0, 1, 2):  # passed, failed, import failed
            log = Path(folder, "log.txt")
            raise RuntimeError(f"pytest could not run {tests}: {result}\n{log.read_text()}")
    return Outcome(result["first"] if result["code"] else "", time.perf_counter() - start)


def main() -> int:
    """Run the control and the mutants, print a table, return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("words", nargs="*", help="only mutants whose description holds one of them")
    arguments = parser.parse_args()
    chosen = [
        mutant
        for mutant in MUTANTS
        if not arguments.words or any(word in mutant.what for word in arguments.words)
    ]
    if not chosen:
        parser.error(f"no mutant matches {arguments.words}")
    for mutant in chosen:
        mutant.applied_to((ROOT / mutant.file).read_text())

    prepare()
    start = time.perf_counter()
    control = try_tests(tuple(sorted({name for mutant in chosen for name in mutant.tests})))
    if control.noticed_by:
        print(f"the tests fail without any mutant: {control.noticed_by}")
        return 2
    print(f"{'seconds':>7}  {'mutant':<50} noticed by")
    print(f"{control.seconds:7.1f}  {'(none: the control)':<50} -")
    with ThreadPoolExecutor(arguments.jobs) as pool:
        outcomes = pool.map(lambda mutant: try_tests(mutant.tests, mutant), chosen)
        survivors = 0
        for mutant, outcome in zip(chosen, outcomes, strict=True):
            survivors += not outcome.noticed_by
            verdict = outcome.noticed_by or "NOBODY"
            print(f"{outcome.seconds:7.1f}  {mutant.what:<50} {verdict}", flush=True)
    seconds = time.perf_counter() - start
    print(f"{len(chosen) - survivors} of {len(chosen)} noticed in {seconds:.0f} s")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
