"""What a run held out, what it says of it, and what `eval` scores: the same pairs, no others."""

import contextlib
import itertools
import json
import math
from types import SimpleNamespace

import pytest
import torch

from dpo_lib.cli import answers, main
from dpo_lib.cli.answers import answer_seed
from dpo_lib.cli.evaluate import held_out_paths
from dpo_lib.cli.held_out import HeldOut, lengths, make_loss, pair_log_probs, say_scores, score
from dpo_lib.cli.progress import Progress, Stage
from dpo_lib.cli.train import _summary
from dpo_lib.data import split_by_prompt
from dpo_lib.data.formats import Conversation, make_prompt
from dpo_lib.evaluation import estimate_kl, reply_log_probs
from dpo_lib.losses import dpo_loss, kto_loss, simpo_loss, unpaired_kto_loss
from dpo_lib.models import Reply, load_base, load_sft, respond
from dpo_lib.models.tokenizers import InstructionTokenizer
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


def test_thumbs_are_held_against_the_level_of_mismatched_responses():
    rows = [{"prompt": [2], "response": [3], "desirable": up} for up in (True, False, False)]
    reference = torch.tensor([[-3.0, -4.0, -5.0], [-6.0, -6.0, -6.0]], dtype=WIDE)
    policy = reference + torch.tensor([[1.0, 0.0, -1.0], [2.0, 1.0, 3.0]], dtype=WIDE)
    found = score(policy, reference, rows, unpaired_kto_loss, 0.5)
    thumbs = torch.tensor([row["desirable"] for row in rows])
    losses = unpaired_kto_loss(policy[0], reference[0], thumbs, 0.5, kl=2.0).losses
    assert found["loss"] == pytest.approx(losses.mean().item())
    assert found["level"] == 2.0
    alone = score(policy[:1, :1], reference[:1, :1], rows[:1], unpaired_kto_loss, 0.5)
    assert (alone["thumbs_up"], alone["thumbs_down"], alone["desirable_logp"]) == (1, 0, 1.0)
    assert not {"level", "auc", "undesirable_logp"} & alone.keys()  # of none there is no mean


def test_lengths_are_means_of_each_kind():
    assert lengths(rows_of([(3, 2), (1, 5)])) == {"chosen": 2.0, "rejected": 3.5}
    thumbs = [(3, True), (6, True), (2, False)]
    rows = [{"prompt": [2], "response": [3] * n, "desirable": up} for n, up in thumbs]
    assert lengths(rows) == {"desirable": 4.5, "undesirable": 2.0}
    assert lengths(rows[:2]) == {"desirable": 4.5}


def test_scores_in_words_are_the_scores():
    found = {"accuracy": 0.754, "margin": -1.236, "chosen_logp": 0.26, "rejected_logp": -3.14}
    assert say_scores(found) == (
        "accuracy 0.75, margin -1.24, log-probability of chosen +0.3, of rejected -3.1 nats"
    )
    found = {"auc": 0.754, "margin": 1.236, "desirable_logp": -0.26, "undesirable_logp": -3.14}
    ups = "log-probability of thumbs up -0.3 nats"
    both = f"AUC 0.75, margin 1.24, {ups}, log-probability of thumbs down -3.1 nats"
    assert say_scores(found) == both
    assert say_scores({"desirable_logp": -0.26}) == ups


def test_pairs_are_counted_as_they_are_scored():
    pairs, stage = SimpleNamespace(rows=rows_of([(3, 2), (2, 5), (4, 4)])), Stage("scoring", 3, "")
    found = pair_log_probs(load_sft(), pairs, stage)
    assert (found.shape, stage.done) == ((2, 3), 3)
    assert torch.equal(found, pair_log_probs(load_sft(), pairs))


def test_the_reference_is_scored_once_and_kept(tmp_path):
    rows, kept = rows_of([(3, 2), (2, 5), (4, 4)]), tmp_path / "kept.json"
    sides = ("chosen", "rejected")

    def scale(by):
        return lambda some: tuple(
            torch.tensor([-by * len(row[side]) for row in some], dtype=WIDE) for side in sides
        )

    def never(some):
        raise AssertionError("computed again")

    reference = torch.tensor([[-3.0, -2.0, -4.0], [-2.0, -5.0, -4.0]], dtype=WIDE)
    HeldOut(rows, dpo_loss, 0.5, scale(1.0), kept, write=False).at_start(2)
    assert not kept.exists()
    start = HeldOut(rows, dpo_loss, 0.5, scale(1.0), kept, write=True).at_start(2)
    assert start == score(reference[:, :2], reference[:, :2], rows[:2], dpo_loss, 0.5)
    resumed = HeldOut(rows, dpo_loss, 0.5, never, kept, write=True)
    assert resumed.reference.dtype == WIDE
    assert resumed.at_start(2) == start
    resumed.log_probs = scale(0.5)
    assert resumed(2) == score(reference[:, :2] / 2, reference[:, :2], rows[:2], dpo_loss, 0.5)
    assert resumed() == score(reference / 2, reference, rows, dpo_loss, 0.5)
    assert resumed(log_probs=scale(2.0)) == score(reference * 2, reference, rows, dpo_loss, 0.5)


@pytest.mark.parametrize(
    ("name", "options", "unpaired", "words"),
    [
        ("dpo", {"gamma": 1.0}, False, "loss dpo has no setting 'gamma'; it has .'label_smoothing"),
        ("ipo", {"beta": 1.0}, False, "loss ipo has no setting 'beta'; it has none"),
        ("odpo", {}, False, "loss odpo needs a value of its own for 'offset': offset=VALUE"),
        ("simpo", {"gamma": -1.0}, False, "gamma must be a number, at least 0, got -1.0"),
        ("kto", {"desirable_weight": 0.0}, True, "desirable_weight must be"),
        ("kto", {"desirable": 1.0}, True, "loss kto has no setting 'desirable'"),
        ("dpo", {}, True, "dpo_loss compares the two responses of a pair"),
    ],
)
def test_a_loss_that_cannot_be_is_refused_before_training(name, options, unpaired, words):
    with pytest.raises(ValueError, match=f"^{words}"):
        make_loss(name, options, unpaired)


def test_a_loss_has_the_settings_that_were_typed():
    made = make_loss("simpo", {"gamma": 0.5})
    assert (made.func, made.keywords) == (simpo_loss, {"gamma": 0.5})
    assert make_loss("simpo", {}) is simpo_loss
    assert make_loss("kto", {}, unpaired=True) is unpaired_kto_loss
    assert make_loss("kto", {}) is kto_loss


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


def test_each_batch_of_answers_is_drawn_from_another_seed(monkeypatch):
    drawn = []

    def respond(model, tokenizer, prompts, new, temperature, seed):
        drawn.append((prompts, new, temperature, seed))
        return prompts

    monkeypatch.setattr(answers, "respond", respond)
    opened = SimpleNamespace(model=None, tokenizer=InstructionTokenizer(), context=99)
    asked = [f"p{i}" for i in range(5)]
    assert answers.answer(opened, asked, 9, 0.5, seed=7, together=2) == asked
    assert [row[:3] for row in drawn] == [(asked[i : i + 2], 9, 0.5) for i in (0, 2, 4)]
    assert len({seed for *_, seed in drawn}) == 3
    assert answers.answer(opened, asked, 9, 0.5, seed=[1, 2, 3, 4, 5], together=2) == asked
    assert [seed for *_, seed in drawn[3:]] == [[1, 2], [3, 4], [5]]


def test_answers_before_and_after_stay_apart(tmp_path, monkeypatch):
    replies = [Reply("p", "long answer", True, (1,) * 9), Reply("q", "cut", False, (1,) * 5)]
    asked = []

    def answer(opened, prompts, max_new_tokens, **more):
        asked.append((opened, [*prompts], max_new_tokens, more))
        return replies

    monkeypatch.setattr(answers, "answer", answer)
    answers.answer_before(tmp_path, "opened", ["p", "q"], 9)
    before = (tmp_path / "samples.json").read_bytes()
    answers.answer_before(tmp_path, "opened", ["p", "q"], 9)
    assert (tmp_path / "samples.json").read_bytes() == before
    assert asked == [("opened", ["p", "q"], 9, {})]  # an interrupted run had them already
    replies = [Reply("p", "short", True, (1,) * 2), Reply("q", "end", True, (1,) * 4)]
    means, drawn = answers.answers_after(tmp_path, "opened", ["p", "q", "r"], 9, 5)
    assert drawn == replies
    assert asked[1:] == [
        ("opened", ["p", "q"], 9, {}),
        ("opened", ["p", "q", "r"] * 5, 9, {"temperature": 1.0, "seed": 5}),  # 16 at most
    ]
    assert means == {
        "tokens_before": 7.0,
        "tokens_after": 3.0,
        "finished_before": 0.5,
        "finished_after": 1.0,
    }
    rows = json.loads((tmp_path / "samples.json").read_text())
    assert [(row["prompt"], row["before"]["text"], row["after"]["text"]) for row in rows] == [
        ("p", "long answer", "short"),
        ("q", "cut", "end"),
    ]
    said = _summary(tmp_path, {"results": {"held_out": None, **means}, "advice": []})
    assert "answers: 7.0 tokens before, 3.0 after" in said


def test_of_many_prompts_the_kl_takes_the_first_and_of_no_samples_there_is_none(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(answers, "answer", lambda opened, prompts, *_, **__: [*prompts])
    assert answers.answers_after(tmp_path, None, ["p"], 9, 0) == ({}, [])
    assert answers.kl_from_start(None, []) == {}
    reply = answers.as_row(Reply("p", "a", True, (1, 2)))
    assert reply == {"text": "a", "tokens": 2, "finished": True}
    prompts = [f"{i}" for i in range(20)]
    replies = [Reply(prompt, "a", True, (1,)) for prompt in prompts]
    drawn = []

    def answer(opened, prompts, *_, **more):
        drawn.append([*prompts])
        return replies

    monkeypatch.setattr(answers, "answer", answer)
    answers.answer_before(tmp_path, None, prompts, 9)
    answers.answers_after(tmp_path, None, prompts, 9, 0)
    assert drawn[-1] == prompts[:16]


def test_replies_for_the_kl_are_drawn_from_the_seed(tmp_path, monkeypatch):
    asked = []

    def answer(opened, prompts, max_new_tokens, **how):
        asked.append((prompts, max_new_tokens, how))
        return [Reply(prompt, "a", True, (1,)) for prompt in prompts]

    monkeypatch.setattr(answers, "answer", answer)
    answers.answer_before(tmp_path, None, ["p", "q"], 9)
    _, drawn = answers.answers_after(tmp_path, None, ["p", "q"], 9, 7)
    greedy, sampled = (["p", "q"], 9, {}), {"temperature": 1.0, "seed": 7}
    assert asked == [greedy, greedy, (["p", "q"] * 8, 9, sampled)]
    assert len(drawn) == answers.KL_REPLIES == 16


def test_a_seed_for_every_place_is_the_same_in_every_process():
    assert answer_seed(0, 1, 2) == 50402195975666066
    seeds = {answer_seed(*places) for places in itertools.product(range(3), range(12), range(12))}
    assert len(seeds) == 3 * 12 * 12  # 1, 11 is not 11, 1
    assert all(0 <= seed < 2**56 for seed in seeds)


def test_answers_are_drawn_some_at_a_time_from_the_seeds_of_their_places(monkeypatch):
    asked = []

    def respond(model, tokenizer, prompts, new, temperature, seed):
        assert (model, tokenizer) == (opened.model, opened.tokenizer)
        asked.append((prompts, new, temperature, seed))
        return [f"to {prompt}" for prompt in prompts]

    monkeypatch.setattr(answers, "respond", respond)
    tokenizer = SimpleNamespace(encode_prompt=lambda prompt: [1] * len(prompt))
    opened = SimpleNamespace(model="model", tokenizer=tokenizer, context=10)
    prompts = ["a", "bbb", "cc"]
    replies = ["to a", "to bbb", "to cc"]
    assert answers.answer(opened, prompts, 5, 0.5, seed=7, together=2) == replies
    assert answers.answer(opened, prompts, 99, seed=[4, 9, 2], together=2) == replies
    assert asked == [
        (["a", "bbb"], 5, 0.5, 7),
        (["cc"], 5, 0.5, 9),  # the place of its first one
        (["a", "bbb"], 7, 0.0, [4, 9]),  # behind the longest prompt there is room for 7
        (["cc"], 7, 0.0, [2]),
    ]
    answers.answer(opened, ["a"], 5)
    assert asked[-1] == (["a"], 5, 0.0, 0)
    assert answers.answer(opened, [], 5) == []
    with pytest.raises(ValueError, match="a prompt has 10 tokens, the model reads 10"):
        answers.answer(opened, ["a", "b" * 10], 5)
    tokenizer.encode_prompt = lambda prompt: 1 / 0 if prompt == "a" else int(prompt)
    with pytest.raises(ValueError, match="the prompt 'b': invalid literal"):
        answers.room_for_answers(opened, ["b", "a"])


def test_a_prompt_is_read_from_a_file_as_it_was_written():
    messages = ({"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"})
    messages += ({"role": "user", "content": "No."},)
    tools = ({"name": "clock"},)
    for prompt in ("Hi", Conversation(messages), Conversation(messages, tools)):
        row = json.loads(json.dumps(answers.as_prompt_row(prompt)))
        again = answers.prompt_of_row(row)
        data = json.loads(json.dumps(answers.as_data_row(prompt)))
        for found in (again, make_prompt(data)):
            assert found == prompt
            for name in ("messages", "tools"):
                mine, theirs = (getattr(x, name, None) for x in (found, prompt))
                assert (mine and list(mine)) == (theirs and list(theirs))
        assert row["prompt"] == str(prompt)


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
    words += ["--eval-pairs", "8"]  # while training; all of them at the end
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
    for side in ("chosen", "rejected"):
        sizes = [len(tokenizer.encode_response(getattr(r, side))) for r in held_out]
        assert found[f"tokens_{side}"] == pytest.approx(sum(sizes) / len(sizes))
    at_the_end = told["results"]["held_out"]
    assert {name: found[name] for name in at_the_end} == pytest.approx(at_the_end, abs=1e-4)


def test_beta_is_that_of_the_run_unless_typed(run, capsys):
    found = []
    for more in ((), ("--beta", "0.25")):
        capsys.readouterr()
        assert main(["eval", "--model", str(run), "--json", *more]) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert [one["beta"] for one in found] == [1.0, 0.25]
    assert found[1]["margin"] == pytest.approx(found[0]["margin"] / 4)


def told(capsys, *words):
    """What ``eval`` tells a program, and the lines that it prints for a reader."""
    capsys.readouterr()
    assert main(["eval", *map(str, words), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert main(["eval", *map(str, words)]) == 0
    return found, capsys.readouterr().out.splitlines()


def test_eval_prints_every_score_beside_its_name(run, capsys):
    found, (first, second, *table) = told(capsys, "--model", run)
    settings = json.loads((run / "run.json").read_text())["settings"]
    names = {"model": str(run), "reference": "tiny", "beta": settings["beta"]}
    names["data"] = str(run.parent / "pairs.jsonl")
    assert names.items() <= found.items()
    assert found["beta"] == 1.0  # the run's
    assert first == f"{run}, relative to tiny, beta 1"
    assert second.startswith(f"{names['data']}: {found['pairs']} pairs, ")
    scores = {name: value for name, value in found.items() if name not in names}
    assert [*scores][:2] == ["pairs", "skipped"]
    assert {"tokens_chosen", "tokens_rejected", "loss", "accuracy"} <= scores.keys()
    assert [line.split() for line in table] == [
        [name, f"{value:.3f}" if isinstance(value, float) else str(value)]
        for name, value in [*scores.items()][2:]
    ]
    assert len({len(line) for line in table}) == 1  # in two columns
    other = told(capsys, "--model", run, "--beta", "0.5", "--reference", run)
    assert other[1][0] == f"{run}, relative to {run}, beta 0.5"
    assert (other[0]["margin"], other[0]["reference"]) == (0.0, str(run))


def test_eval_without_a_model_before_goes_by_log_probability_alone(run, records, capsys):
    data = run.parent / "two.jsonl"
    two = [r for r in records if r.chosen != r.rejected][:2]
    rows = [{"prompt": r.prompt, "chosen": r.chosen, "rejected": r.rejected} for r in two]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found, lines = told(capsys, "--model", "tiny", "--data", data)
    assert found["reference"] is None
    assert lines[0] == "tiny, by log-probability alone, without a reference, beta 0.1"
    logps = [
        reply_log_probs(
            load_sft(),
            world_tokenizer(),
            [
                Reply(r.prompt, text, True, tuple(world_tokenizer().encode_response(text)))
                for text in (r.chosen, r.rejected)
            ],
        )
        for r in two
    ]
    margins = [0.1 * (chosen - rejected).item() for chosen, rejected in logps]
    assert found["margin"] == pytest.approx(sum(margins) / 2, abs=1e-5)
    assert found["loss"] == pytest.approx(
        sum(math.log1p(math.exp(-margin)) for margin in margins) / 2, abs=1e-5
    )


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (None, "--data is needed: the model is not a run with held-out pairs"),
        ({"held_out": 0}, "--data is needed: the run held no pairs out"),
        (
            {"held_out": 1, "data": "gone.jsonl"},
            "--data is needed: the run's file gone.jsonl is not there",
        ),
    ],
)
def test_eval_needs_pairs(run, message):
    with pytest.raises(ValueError, match="is needed") as error:
        held_out_paths(run)
    assert str(error.value) == message


def test_eval_scores_all_of_a_file_of_its_own_and_counts_them(monkeypatch):
    from dpo_lib.cli import evaluate

    class Whole(list):
        unit = "thumbs"

        def split(self, share, seed):
            return "trained on", ("held out", share, seed)

    pairs = SimpleNamespace(dataset=Whole("abc"))
    usual = {"settings": {"held_out": 0.3, "seed": 4}, "eval_data": []}
    apart, typed = {**usual, "eval_data": ["e"]}, SimpleNamespace(data=["d"])
    args = SimpleNamespace(data=None, progress=Progress(False))
    assert evaluate._scored_part(args, usual, pairs) == ("held out", 0.3, 4)
    assert evaluate._scored_part(args, apart, pairs) is pairs.dataset
    assert evaluate._scored_part(typed, None, pairs) is pairs.dataset
    monkeypatch.setattr(evaluate, "pair_log_probs", lambda *given: given)
    *given, stage = evaluate._scored("model", pairs.dataset, args)
    assert given == ["model", pairs.dataset]
    assert (stage.name, stage.total, stage.unit) == ("scoring", 3, "thumbs")


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
    both = [*map(str, files.values())]
    with pytest.raises(ValueError, match=f"the run's file {', '.join(both)} has changed$"):
        held_out_paths({**run, "data": both, "eval_data": []})
