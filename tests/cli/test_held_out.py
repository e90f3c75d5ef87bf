"""What a run held out, what it says of it, and what `eval` scores: the same pairs, no others."""

import contextlib
import json
from types import SimpleNamespace

import pytest
import torch

from dpo_lib.cli import answers, main
from dpo_lib.cli.evaluate import held_out_paths
from dpo_lib.cli.held_out import score
from dpo_lib.cli.train import _summary
from dpo_lib.data import split_by_prompt
from dpo_lib.evaluation import estimate_kl, reply_log_probs
from dpo_lib.losses import dpo_loss, unpaired_kto_loss
from dpo_lib.models import Reply, load_base, load_sft, respond
from dpo_lib.world import label_by_reward, load_pairs, preference_prompts, world_tokenizer

WIDE = torch.float64


def rows_of(lengths):
    return [{"prompt": [2], "chosen": [3] * n, "rejected": [4] * m} for n, m in lengths]


# --- scores --------------------------------------------------------------------------------------


def test_pairs_by_which_response_is_longer():
    rows = rows_of([(3, 2), (3, 2), (2, 5), (4, 4)])
    reference = torch.tensor([[-9.0, -8.0, -7.0, -6.0], [-5.0, -4.0, -3.0, -2.0]], dtype=WIDE)
    shift = torch.tensor([[1.0, -1.0, 1.0, 2.0], [0.0, 0.0, 0.5, 0.0]], dtype=WIDE)
    found = score(reference + shift, reference, rows, dpo_loss, 0.5)
    assert (found["pairs_chosen_longer"], found["pairs_chosen_shorter"]) == (2, 1)
    assert (found["accuracy_chosen_longer"], found["accuracy_chosen_shorter"]) == (0.5, 1.0)
    assert found["accuracy"] == 0.75
    assert found["margin"] == pytest.approx(0.5 * (1 - 1 + 0.5 + 2) / 4)


def test_a_difference_of_last_bits_is_a_tie_in_every_group():
    rows = rows_of([(3, 2), (2, 3)])
    reference = torch.tensor([[-40.0, -40.0], [-50.0, -50.0]])
    policy = reference * (1 + torch.tensor([1e-7, -1e-7]))
    found = score(policy, reference, rows, dpo_loss, 0.1)
    names = ("accuracy", "accuracy_chosen_longer", "accuracy_chosen_shorter")
    assert [found[name] for name in names] == [0.5] * 3


def test_thumbs_of_each_kind_are_counted():
    rows = [{"prompt": [2], "response": [3], "desirable": up} for up in (True, False, False)]
    values = torch.tensor([[-3.0, -4.0, -5.0]], dtype=WIDE)
    found = score(values + torch.tensor([1.0, 0.0, -1.0]), values, rows, unpaired_kto_loss, 0.5)
    assert (found["thumbs_up"], found["thumbs_down"], found["auc"]) == (1, 2, 1.0)
    tied = score(values * (1 + 1e-15), values, rows, unpaired_kto_loss, 0.5)
    assert tied["auc"] == 0.5


# --- answers -------------------------------------------------------------------------------------


def test_the_kl_of_answers_is_from_the_policy_to_its_start():
    policy, start, tokenizer = load_sft(), load_base(), world_tokenizer()
    asked = [prompt for prompt in preference_prompts()[:4] for _ in range(2)]
    drawn = respond(policy, tokenizer, asked, 12, seed=1)
    opened = SimpleNamespace(
        model=policy, tokenizer=tokenizer, as_it_was=lambda: contextlib.nullcontext(start)
    )
    found = answers.kl_from_start(opened, drawn)
    logps = [reply_log_probs(model, tokenizer, drawn) for model in (policy, start)]
    kl = estimate_kl(*logps).k1
    assert kl.mean > 1
    assert found == {
        "kl": pytest.approx(kl.mean, rel=1e-6),
        "kl_error": pytest.approx(kl.error, rel=1e-6),
        "kl_replies": 8,
    }


def test_answers_before_and_after_stay_apart(tmp_path, monkeypatch):
    replies = [Reply("p", "long answer", True, (1,) * 9), Reply("q", "cut", False, (1,) * 5)]
    monkeypatch.setattr(answers, "answer", lambda *_, **__: replies)
    answers.answer_before(tmp_path, None, ["p", "q"], 9)
    replies = [Reply("p", "short", True, (1,) * 2), Reply("q", "end", True, (1,) * 4)]
    means, _ = answers.answers_after(tmp_path, None, ["p", "q"], 9, 0)
    assert means == {
        "tokens_before": 7.0,
        "tokens_after": 3.0,
        "finished_before": 0.5,
        "finished_after": 1.0,
    }
    rows = json.loads((tmp_path / "samples.json").read_text())
    assert [(row["before"]["text"], row["after"]["text"]) for row in rows] == [
        ("long answer", "short"),
        ("cut", "end"),
    ]
    said = _summary(tmp_path, {"results": {"held_out": None, **means}, "advice": []})
    assert "answers: 7.0 tokens before, 3.0 after" in said


# --- eval ----------------------------------------------------------------------------------------

LONGEST = 24  # tokens: leaves some pairs out, so that the split is one of fewer prompts


@pytest.fixture(scope="module")
def records():
    return label_by_reward(load_pairs(), 0)[::5]


@pytest.fixture(scope="module")
def run(records, tmp_path_factory):
    """A run whose split hangs on a seed, a share and a limit that are not the usual ones."""
    work = tmp_path_factory.mktemp("held-out")
    data = work / "pairs.jsonl"
    rows = [{"prompt": r.prompt, "chosen": r.chosen, "rejected": r.rejected} for r in records]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["train", "--model", "tiny", "--data", str(data), "--out", str(work / "run")]
    words += ["--steps", "2", "--batch-size", "16", "--lr", "1e-3", "--samples", "0"]
    words += ["--seed", "3", "--held-out", "0.3", "--max-length", str(LONGEST), "--skip-bad"]
    assert main(words) == 0
    return work / "run"


def scored_prompts(monkeypatch, run, capsys):
    from dpo_lib.cli import evaluate

    seen, original = [], evaluate.score

    def keep(policy, reference, rows, *rest):
        seen.extend(tuple(row["prompt"]) for row in rows)
        return original(policy, reference, rows, *rest)

    monkeypatch.setattr(evaluate, "score", keep)
    capsys.readouterr()
    assert main(["eval", "--model", str(run), "--json"]) == 0
    return seen, json.loads(capsys.readouterr().out)


def test_eval_scores_no_prompt_that_was_trained_on(run, records, monkeypatch, capsys):
    tokenizer = world_tokenizer()

    def size(record):
        prompt = len(tokenizer.encode_prompt(record.prompt))
        answers = (record.chosen, record.rejected)
        return prompt + max(len(tokenizer.encode_response(text)) for text in answers)

    fitting = [record for record in records if size(record) <= LONGEST]
    assert 50 < len(fitting) < len(records)
    trained, held_out = split_by_prompt(fitting, 0.3, 3)
    seen, found = scored_prompts(monkeypatch, run, capsys)
    assert sorted(seen) == sorted(tuple(tokenizer.encode_prompt(r.prompt)) for r in held_out)
    assert not {*seen} & {tuple(tokenizer.encode_prompt(r.prompt)) for r in trained}
    told = json.loads((run / "run.json").read_text())
    assert found["pairs"] == told["held_out"] == len(held_out)
    assert found["skipped"] == told["skipped"]


def test_eval_refuses_data_that_has_changed(tmp_path):
    from dpo_lib.data.files import digest_files

    files = {name: tmp_path / f"{name}.jsonl" for name in ("data", "eval_data")}
    for name, file in files.items():
        file.write_text(f'{{"{name}": 1}}\n')
    own = {f"{name}_sha256": digest_files([str(file)]) for name, file in files.items()}
    run = {name: [str(file)] for name, file in files.items()}
    run |= {"held_out": 1, "settings": own}
    assert held_out_paths(run) == [str(files["eval_data"])]
    assert held_out_paths({**run, "eval_data": []}) == [str(files["data"])]
    files["eval_data"].write_text("other\n")
    assert held_out_paths({**run, "eval_data": []}) == [str(files["data"])]
    with pytest.raises(ValueError, match=r"file .*eval_data.jsonl has changed"):
        held_out_paths(run)
    files["data"].write_text("other\n")
    with pytest.raises(ValueError, match=r"file .*data.jsonl has changed"):
        held_out_paths({**run, "eval_data": []})
