"""``eval --behavior``: shares, intervals, KL and price, against values computed another way."""

import contextlib
import json
import math
from statistics import NormalDist
from types import SimpleNamespace

import pytest
import torch

from dpo_lib.cli import behavior as command
from dpo_lib.cli import main
from dpo_lib.cli.data import tokenizer_options
from dpo_lib.cli.draw import in_groups
from dpo_lib.cli.models import open_model
from dpo_lib.cli.parser import make_parser
from dpo_lib.cli.progress import Progress, Stage
from dpo_lib.cli.records import write_json
from dpo_lib.evaluation import clustered_share, estimate, least_kl, reply_log_probs
from tests.models.hf import make_folder

pytestmark = pytest.mark.usefixtures("no_network")
PROMPTS = [f"{i}+{i}=" for i in range(12)]
PAIRS = [{"prompt": prompt, "chosen": "aaaa", "rejected": "zzzz"} for prompt in PROMPTS]
NEW, EACH = 8, 3
RULE = "def has_a(prompt, answer):\n    return 'a' in answer\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    """A model that writes more of the letter a than the one it started from."""
    work = tmp_path_factory.mktemp("runs")
    data = work / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in PAIRS))
    words = ["train", "--model", str(folder), "--data", str(data), "--out", str(work / "run")]
    words += ["--full", "--loss", "sft", "--lr", "1e-2", "--steps", "12", "--batch-size", "4"]
    assert main([*words, "--held-out", "0.5", "--samples", "1", "--max-new-tokens", "3"]) == 0
    return work / "run"


@pytest.fixture
def see(run, tmp_path, capsys):
    (tmp_path / "mine.py").write_text(RULE)
    capsys.readouterr()

    def see(*more, rule=f"{tmp_path}/mine.py:has_a"):
        words = ["eval", "--model", str(run), "--behavior", rule, "--max-new-tokens", str(NEW)]
        status = main([*words, "--per-prompt", str(EACH), "--json", *more])
        told = capsys.readouterr()
        return json.loads(told.out) if status == 0 else (status, told.err)

    return see


def test_the_held_out_prompts_are_asked(see, run, tmp_path):
    found = see("--out", str(tmp_path / "kept.json"))
    kept = json.loads((tmp_path / "kept.json").read_text())
    answers = kept.pop("answers")
    assert kept == found
    assert found["prompts"] == len(answers) == 6
    settings = json.loads((run / "run.json").read_text())["settings"]
    assert (found["reference"], found["seed"]) == (settings["model"], 0)
    for when in ("before", "after"):
        shows = [["a" in a["text"] for a in row[when]["drawn"]] for row in answers]
        assert {len(row) for row in shows} == {EACH}
        assert found[when]["drawn"] == clustered_share(shows)._asdict()
        greedy = [["a" in row[when]["greedy"]["text"]] for row in answers]
        assert found[when]["greedy"] == clustered_share(greedy)._asdict()
        drawn = [a for row in answers for a in row[when]["drawn"]]
        assert found[when]["tokens"] == sum(a["tokens"] for a in drawn) / len(drawn)
        assert found[when]["ends"]["share"] == sum(a["ended"] for a in drawn) / len(drawn)
    means = [
        sum(("a" in a["text"]) / EACH * sign for sign, when in ((1, "after"), (-1, "before"))
            for a in row[when]["drawn"])
        for row in answers
    ]  # fmt: skip
    assert found["change"]["drawn"]["mean"] == pytest.approx(sum(means) / 6)
    assert found["change"]["drawn"]["low"] < sum(means) / 6 < found["change"]["drawn"]["high"]
    assert found["after"]["drawn"]["share"] > found["before"]["drawn"]["share"]


def test_the_kl_is_that_of_the_draws_and_the_price_that_of_the_shares(see, run, folder, tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("\n".join(PROMPTS))
    found = see("--prompts", str(path))
    after, before = open_model(str(run)), open_model(str(folder))
    groups = in_groups(after, PROMPTS, EACH, NEW, 1.0, 0, Stage("draws", None, ""))
    replies = [reply for _, one in groups for reply in one]
    ratio = reply_log_probs(after.model, after.tokenizer, replies)
    ratio -= reply_log_probs(before.model, before.tokenizer, replies)
    mean, error = estimate(ratio.reshape(12, EACH).mean(dim=1))
    assert found["kl"]["mean"] == pytest.approx(mean, abs=1e-4)
    assert found["kl"]["error"] == pytest.approx(error, abs=1e-4)
    p, q = (found[when]["drawn"]["share"] for when in ("before", "after"))
    assert found["price"]["all"] == -math.log(found["price"]["share"])
    assert 0 < p < q
    assert found["price"]["share"] == p
    assert found["price"]["this_share"] == least_kl(p, q) <= mean


def test_a_model_is_no_distance_from_itself(see, run):
    found = see("--reference", str(run))
    assert found["kl"] == {"mean": 0.0, "error": 0.0}
    assert found["before"] == found["after"]
    assert found["change"]["drawn"]["mean"] == found["price"]["this_share"] == 0


def test_a_prompt_that_is_there_twice_is_asked_once(see, run, tmp_path, capsys):
    path = tmp_path / "prompts.txt"
    path.write_text("1\n2\n1\n")
    words = ["eval", "--model", str(run), "--behavior", f"{tmp_path}/mine.py:has_a"]
    assert main([*words, "--prompts", str(path), "--max-new-tokens", "2"]) == 0
    told = capsys.readouterr()
    assert "1 prompts of" in told.err
    assert "; 2 prompts, 4 answers each" in told.out


def test_where_there_is_no_before_there_is_no_change(folder, tmp_path, capsys):
    (tmp_path / "mine.py").write_text("def long(prompt, answer):\n    return len(answer) > 3\n")
    (tmp_path / "prompts.txt").write_text("1\n2\n")
    words = ["eval", "--model", str(folder), "--behavior", f"{tmp_path}/mine.py:long"]
    words += ["--prompts", str(tmp_path / "prompts.txt"), "--max-new-tokens", "5"]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert not {"before", "change", "kl", "price"} & found.keys()
    assert main(words) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[2].split() == ["after"]
    assert table[3].startswith("drawn share ")


def test_the_table_says_what_the_json_says(see, run, tmp_path, capsys):
    found = see("--judge", f"{tmp_path}/mine.py:has_a")
    words = ["eval", "--model", str(run), "--behavior", f"{tmp_path}/mine.py:has_a"]
    words += ["--judge", f"{tmp_path}/mine.py:has_a", "--per-prompt", str(EACH)]
    assert main([*words, "--max-new-tokens", str(NEW)]) == 0
    table = capsys.readouterr().out
    after = found["after"]["drawn"]
    assert f"{after['share']:.2f} [{after['low']:.2f}, {after['high']:.2f}]" in table
    assert f"{found['kl']['mean']:.2f} ± {found['kl']['error']:.2f}" in table
    assert f"= {found['price']['all']:.2f} nats" in table
    assert f"less than {found['price']['this_share']:.2f} nats, nor" in table
    assert f"wins                                 {found['wins']['share']:.2f} [" in table


def share(middle, low, high, name="share"):
    return {name: middle, "low": low, "high": high}


SEEN = {
    "model": "mine", "reference": "smollm2", "behavior": "a.py:b", "prompts": 6, "per_prompt": 3,
    "before": {
        "drawn": share(0.25, 0.1, 0.4), "greedy": share(0.5, 0.2, 0.8), "ends": share(1, 0.9, 1),
        "tokens": 7.25, "greedy_tokens": 8.5,
    },
    "after": {
        "drawn": share(0.75, 0.6, 0.9), "greedy": share(1, 0.7, 1), "ends": share(0.5, 0.3, 0.7),
        "tokens": 5.75, "greedy_tokens": 3,
    },
    "change": {
        "drawn": share(0.5, 0.25, 0.75, "mean"), "greedy": share(-0.5, -1, 0.125, "mean"),
    },
    "kl": {"mean": 1.234, "error": 0.056},
    "price": {"share": 0.25, "all": 1.386, "this_share": 0.549},
    "wins": {**share(0.6, 0.4, 0.8), "ties": 0.125, "turned": 0.25},
}  # fmt: skip


def test_every_number_of_the_table_stands_in_its_row_and_column():
    assert command._table(SEEN).splitlines() == [
        "mine, before: smollm2",
        "behavior a.py:b; 6 prompts, 3 answers each drawn at temperature 1, one greedy; in "
        "brackets 95% intervals",
        "               before                after                 change",
        "drawn share    0.25 [0.10, 0.40]     0.75 [0.60, 0.90]     +0.50 [+0.25, +0.75]",
        "greedy share   0.50 [0.20, 0.80]     1.00 [0.70, 1.00]     -0.50 [-1.00, +0.12]",
        "ends           1.00 [0.90, 1.00]     0.50 [0.30, 0.70]",
        "tokens         7.2                   5.8",
        "greedy tokens  8.5                   3.0",
        "wins                                 0.60 [0.40, 0.80], 12% ties; 25% turn with the order",
        "KL in nats     0                     1.23 ± 0.06",
        "price: no model has this share for less than 0.55 nats, nor the behavior in every answer "
        "for less than -log 0.250 = 1.39 nats",
    ]


def test_the_table_of_one_model_and_of_a_behavior_that_was_not_there():
    alone = {name: SEEN[name] for name in ("model", "behavior", "prompts", "per_prompt", "after")}
    lines = command._table({**alone, "reference": None}).splitlines()
    assert lines[0] == "mine"
    assert lines[2] == "                                     after"
    assert lines[3] == "drawn share                          0.75 [0.60, 0.90]"
    assert lines[5:] == [
        "ends                                 0.50 [0.30, 0.70]",
        "tokens                               5.8",
        "greedy tokens                        3.0",
    ]
    none = {**SEEN["before"], "drawn": share(0, 0, 0.3)}
    wins = {**share(0.6, 0.4, 0.8), "ties": 0.5}
    lines = command._table({**SEEN, "before": none, "wins": wins}).splitlines()
    assert lines[-1].endswith("for less than at least -log 0.250 = 1.39 nats")
    assert lines[-3].endswith("0.60 [0.40, 0.80], 50% ties")


def test_both_models_are_opened_and_asked_alike_and_all_of_it_is_kept(
    tmp_path, monkeypatch, capsys
):
    run, out = str(tmp_path), tmp_path / "new" / "folder" / "kept.json"
    settings = {"model": "start", "system": "Be brief.", "answer_prefix": "So:"}
    known = {"settings": settings, "machine": {}, "finished": True, "held_out": 0}
    write_json(tmp_path / "run.json", known)
    (tmp_path / "mine.py").write_text(RULE)
    (tmp_path / "prompts.txt").write_text("1\n2\n")
    opened, asked, stages = [], [], []

    def open_model(name, options):
        opened.append((name, options))
        return SimpleNamespace(name=name, model=None)

    def in_groups(opened, prompts, each, *how):
        asked.append((opened.name, each, *how[:3]))
        for prompt in prompts:
            yield prompt, [command.Reply(prompt, f"a{str(prompt)[-1]}", True, (1,))] * each

    @contextlib.contextmanager
    def stage(progress, name, total=None, unit=""):
        stages.append((name, total))
        yield Stage(name, total, unit)

    monkeypatch.setattr(command, "open_model", open_model)
    monkeypatch.setattr(command, "in_groups", in_groups)
    monkeypatch.setattr(command, "room_for_answers", lambda *_: 99)
    monkeypatch.setattr(command, "scored_rows", lambda _, replies: [*replies])
    monkeypatch.setattr(command, "PairLogProbs", lambda model: model)
    monkeypatch.setattr(command, "log_probs_of_rows", lambda _, rows: [torch.zeros(len(rows))])
    monkeypatch.setattr(Progress, "stage", stage)
    words = ["eval", "--model", run, "--behavior", f"{run}/mine.py:has_a", "--seed", "4", "--json"]
    words += ["--max-new-tokens", str(NEW), "--per-prompt", str(EACH), "--out", str(out)]
    assert main([*words, "--prompts", f"{run}/prompts.txt"]) == 0
    told, kept = capsys.readouterr(), json.loads(out.read_text())
    assert opened == [(name, tokenizer_options(settings)) for name in (run, "start")]
    assert asked == [
        (name, *how)
        for name in (run, "start")
        for how in ((EACH, NEW, 1.0, 4), (1, NEW, 0.0, 4))
    ]  # fmt: skip
    assert stages[1:] == [
        stage
        for name in (run, "start")
        for stage in (
            (f"loading {name}", None), (f"draws of {name}", 2 * EACH),
            (f"greedy answers of {name}", 2), (f"log-probabilities under {name}", None),
            ("looking for the behavior", 2 * EACH + 2),
        )
    ]  # fmt: skip
    assert "note" not in told.err
    own = {"model": run, "reference": "start", "behavior": f"{run}/mine.py:has_a", "prompts": 2}
    own |= {"per_prompt": EACH, "max_new_tokens": NEW, "seed": 4}
    assert json.loads(told.out).items() >= own.items()
    assert json.loads(told.out).keys() - own.keys() == {"before", "after", "change", "kl", "price"}
    said = {"role": "system", "content": "Be brief."}

    def row(text, *written):
        one = {"text": f"a{text}", "ended": True, "tokens": 1}
        return {when: {"drawn": [one] * EACH, "greedy": one} for when in written}

    answers = [
        {"prompt": [said, {"role": "user", "content": text}], **row(text, "before", "after")}
        for text in "12"
    ]
    assert kept == {**json.loads(told.out), "answers": answers}
    args = make_parser().parse_args(words)
    args.progress = Progress(False)
    assert command.measure_behavior(args, None, None, lambda: ["1", "2", "1"]) == 0
    assert "note" not in capsys.readouterr().err  # what a run held out may have a prompt twice
    assert json.loads(out.read_text())["answers"] == [
        {"prompt": text, **row(text, "after")} for text in "12"
    ]


def test_other_seeds_draw_other_answers(see, tmp_path):
    texts = []
    for seed in ("0", "0", "1"):
        see("--seed", seed, "--out", str(tmp_path / "kept.json"))
        texts.append(json.loads((tmp_path / "kept.json").read_text())["answers"])
    assert texts[0] == texts[1] != texts[2]
    assert [row["after"]["greedy"] for row in texts[0]] == [
        row["after"]["greedy"] for row in texts[2]
    ]


def test_the_function_can_know_what_was_cut(see, tmp_path):
    (tmp_path / "mine.py").write_text("def cut(prompt, answer, ended):\n    return not ended\n")
    found = see(rule=f"{tmp_path}/mine.py:cut")["after"]
    assert found["drawn"]["share"] == pytest.approx(1 - found["ends"]["share"])
    assert found["greedy"]["share"] == pytest.approx(1 - found["greedy_ends"])


# --- the judge -----------------------------------------------------------------------------------


def replies(*texts):
    return [[command.Reply("p", text, True, (1,))] for text in texts]


def wins(judge, after, before):
    class Args:
        judge = "j"
        timeout = 10.0
        progress = command.Progress(show=False)

    return command._wins(Args, judge, replies(*after), replies(*before))


def test_wins_by_scores():
    found = wins(lambda prompt, answer: len(answer), ["aaa", "b", "cc"], ["a", "bb", "cc"])
    assert found["share"] == 0.5
    assert found["ties"] == pytest.approx(1 / 3)
    assert found | clustered_share([[1], [0], [0.5]])._asdict() == found


@pytest.mark.parametrize(
    ("judge", "share", "turned"),
    [
        (lambda p, a, b: len(a) - len(b), 0.75, 0.0),
        (lambda p, a, b: len(a) > len(b), 0.75, 0.5),  # says of a tie that the second is better
        (lambda p, a, b: True, 0.5, 1.0),  # likes the first, whichever it is
        (lambda p, a, b: 0, 0.5, 0.0),
        (lambda p, a, b: max(0, len(b) - len(a)), 0.25, 0.0),
    ],
)
def test_wins_in_both_orders(judge, share, turned):
    found = wins(judge, ["aaa", "b"], ["a", "c"])
    assert (found["share"], found["turned"]) == (share, turned)


def test_a_prompt_is_one_cluster_of_wins_whose_judge_may_know_what_was_cut():
    class Args:
        judge = "j"
        timeout = 10.0
        progress = command.Progress(show=False)

    def written(*finished):
        return [[command.Reply("p", "x", one, (1,)) for one in pair] for pair in finished]

    asked = []

    def judge(prompt, answer, ended):
        asked.append((prompt, answer))
        return float(ended)

    after, before = written((True, True), (True, False)), written((False, False), (False, True))
    found = command._wins(Args, judge, after, before)
    assert found == clustered_share([[1, 1], [1, 0]])._asdict() | {"ties": 0.0}
    assert asked == [("p", "x")] * 8
    found = command._wins(Args, lambda p, a, b: 0, after, before)
    assert (found["share"], found["ties"], found["turned"]) == (0.5, 1.0, 0.0)

    def fails(prompt, answer):
        raise RuntimeError

    with pytest.raises(ValueError, match=r"j .* an answer to 'p'"):
        command._wins(Args, fails, after, before)
    for says_nothing in (lambda p, a: None, lambda p, a, b: None):
        message = "^j must give a finite number, gives None at an answer to 'p'$"
        with pytest.raises(ValueError, match=message):
            command._wins(Args, says_nothing, after, before)


def test_how_a_judge_is_asked():
    def both(prompt, one, other, ended=True):
        return 0

    assert command._positional(both) == 3
    assert command._positional(lambda prompt, answer, *, ended: 0) == 2
    assert command._positional(lambda prompt, answer, strict=False, **more: 0) == 2
    assert command._positional(min) == 2  # says nothing of itself
    given = True, False, 0.25, -3, 0
    assert [command._as_verdict(value, "j", "p") for value in given] == [1, -1, 1, -1, 0]


# --- numbers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "high", "after", "share", "least"),
    [
        (0.25, 0.5, 0.75, 0.25, least_kl(0.25, 0.75)),
        (0.75, 0.9, 0.25, 0.75, least_kl(0.75, 0.25)),  # less of it has a price, too
        (0.0, 0.5, 0.75, 0.5, least_kl(0.5, 0.75)),
        (0.0, 0.5, 0.25, 0.5, 0.0),  # may be as it was
    ],
)
def test_the_price_of_a_share(before, high, after, share, least):
    found = {"before": {"drawn": {"share": before, "high": high}}, "after": {"drawn": {}}}
    found["after"]["drawn"]["share"] = after
    assert command._price(found) == {"share": share, "all": -math.log(share), "this_share": least}


def test_means_over_what_was_written():
    def reply(length, finished=True):
        return command.Reply("p", "", finished, (1,) * length)

    drawn = [[reply(3), reply(5, False)], [reply(4), reply(8)]]
    written = command.Written(drawn, [[reply(7, False)], [reply(2)]])
    seen = {"drawn": [[1.0, 0.0], [1.0, 1.0]], "greedy": [[0.0], [1.0]]}
    assert command._means(written, seen) == {
        "drawn": clustered_share(seen["drawn"])._asdict(),
        "greedy": clustered_share(seen["greedy"])._asdict(),
        "ends": clustered_share([[1, 0], [1, 1]])._asdict(),
        "tokens": 5.0,
        "greedy_ends": 0.5,
        "greedy_tokens": 4.5,
    }


def test_the_kl_is_a_mean_over_prompts_of_means_over_their_answers():
    policy = torch.tensor([-1.0, -2.0, -4.0, -3.0])
    reference = torch.tensor([-2.0, -5.0, -4.0, -4.0])  # by 1 and 3, by 0 and 1
    found = command._kl(policy, reference, 2)
    assert found == {"mean": 1.25, "error": pytest.approx(0.75)}


# --- what goes wrong -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "def rule(p, a):\n    return 0.5\n",
            "FILE:rule must give true or false, gives 0.5 for a drawn",
        ),
        (
            "def rule(p, a):\n    return None\n",
            "FILE:rule must give a finite number, gives None at a drawn",
        ),
        ("def rule(p, a):\n    return p.nothing\n", "AttributeError"),
        ("rule = 1\n", "--behavior FILE:rule: FILE has no function 'rule'"),
    ],
)
def test_a_function_that_fails_is_told_in_a_sentence(see, tmp_path, source, message):
    path = tmp_path / "rule.py"
    path.write_text(source)
    status, error = see(rule=f"{path}:rule")
    assert status == 2
    assert message.replace("FILE", str(path)) in error
    assert error.count("\n") == 1


def test_a_function_that_hangs_is_given_up(see, tmp_path):
    path = tmp_path / "rule.py"
    path.write_text("import time\ndef rule(p, a):\n    time.sleep(60)\n")
    status, error = see("--timeout", "0.2", rule=f"{path}:rule")
    assert status == 2
    assert f"{path}:rule is silent for 0.2 s at a drawn answer to '" in error


def tail_of_student(t, freedom):
    """How much of the distribution lies above, for an even number: a finite sum."""
    cos2, term, total = 1 / (1 + t * t / freedom), 1.0, 0.0
    for i in range(freedom // 2):
        total += term
        term *= cos2 * (2 * i + 1) / (2 * i + 2)
    return (1 - (t / math.sqrt(freedom + t * t)) * total) / 2


@pytest.mark.parametrize("z", [0.5, 1.0])
def test_what_the_series_of_student_leaves_out_falls_as_the_fourth_power(monkeypatch, z):
    monkeypatch.setattr(command, "Z", z)
    tail, normal = tail_of_student(command._student(1000), 1000), NormalDist()
    assert tail == pytest.approx(normal.cdf(-z), rel=0, abs=0.1 * normal.pdf(z) / 1000**4)


def test_intervals_of_few_prompts_are_students():
    table = {1: 12.706, 2: 4.303, 9: 2.262, 45: 2.014, 10_000: 1.960}  # of Student (1908)
    assert {n: round(command._student(n), 3) for n in table} == table
    assert [command._student(n) for n in (3, 5)] == pytest.approx([3.182, 2.571], rel=0.01)
    after, before = [[1], [1, 0], [0], [1]], [[0], [0, 0], [0], [1]]
    found = command._change(after, before)  # by 1, 0.5, 0 and 0
    assert found["mean"] == 0.375
    half = command._student(3) * (0.6875 / 3 / 4) ** 0.5
    assert (found["low"], found["high"]) == pytest.approx((0.375 - half, min(1, 0.375 + half)))
    assert command._change([[1]] * 3 + [[0]], [[0]] * 4)["high"] == 1
    assert command._change([[0]] * 4, [[1]] * 3 + [[0]])["low"] == -1


def test_what_does_not_go_together(see, run, folder, tmp_path, capsys):
    data = str(tmp_path / "mine.py")
    said = "error: --behavior takes prompts (--prompts), not pairs (--data)\n"
    assert see("--data", data) == (2, said)
    (tmp_path / "empty.txt").write_text("\n")
    assert "holds no prompt" in see("--prompts", str(tmp_path / "empty.txt"))[1]
    (tmp_path / "one.txt").write_text("1+1\n1+1\n")
    said = "\nerror: --behavior needs two prompts at least: intervals are over prompts\n"
    assert see("--prompts", str(tmp_path / "one.txt"))[1].endswith(said)
    for option in ("--prompts", "--judge", "--out"):
        assert main(["eval", "--model", str(run), option, "x"]) == 2
        assert f"{option} goes with --behavior" in capsys.readouterr().err
    rule = f"{tmp_path}/mine.py:has_a"
    words = ["eval", "--model", str(folder), "--behavior", rule]
    assert main(words) == 2
    said = "error: --prompts is needed: the model is not a run with held-out pairs\n"
    assert capsys.readouterr().err == said
    assert main([*words, "--prompts", "x", "--judge", rule]) == 2
    said = "error: --judge compares with the model before: --reference names it\n"
    assert capsys.readouterr().err == said


def test_only_one_model_is_in_memory(see, run, monkeypatch):
    import gc
    import weakref

    opened, original = [], command.open_model

    def watched(*given):
        gc.collect()
        assert not [model for model in opened if model() is not None]
        found = original(*given)
        opened.append(weakref.ref(found.model))
        return found

    monkeypatch.setattr(command, "open_model", watched)
    see()
    assert len(opened) == 2
