"""What ``train`` says, shows, asks for and keeps, each compared with the whole."""

import contextlib
import dataclasses
import itertools
import json
import platform
from types import SimpleNamespace

import pytest
import torch

from dpo_lib.cli import data, main, records, report, train
from dpo_lib.cli.answers import BATCH
from dpo_lib.cli.held_out import Plan
from dpo_lib.cli.models import OpenModel, open_model
from dpo_lib.cli.progress import Progress
from dpo_lib.cli.records import read_metrics
from dpo_lib.cli.settings import RunSettings
from dpo_lib.data import PreferenceDataset, PreferenceRecord
from dpo_lib.data.files import digest_files
from dpo_lib.losses import LOSSES, unpaired_kto_loss
from dpo_lib.training.processes import Processes
from dpo_lib.world import load_pairs

ALONE = Processes()


def other():
    """A process that is not the main one."""
    processes = Processes()
    processes.main = False
    return processes


def settings(**values):
    own = {"out": "o", "data": ("d",), "loss": "dpo", "beta": 0.25, "lr": 2e-5, "full": True}
    own |= {"steps": 7, "batch_size": 3, "eval_every": 2}
    return RunSettings(**own | values)


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Pairs to train on, and pairs to evaluate on, of which four are the same."""
    folder = tmp_path_factory.mktemp("data")
    pairs = [(p, a, b) for p, a, b in load_pairs()[::40] if a != b]
    rows = [dict(zip(("prompt", "chosen", "rejected"), pair, strict=True)) for pair in pairs]
    return write_lines(folder / "p", rows[:16]), write_lines(folder / "e", rows[12:20])


@pytest.fixture
def stages(monkeypatch):
    """What is shown, with what is counted."""
    shown, original = [], Progress.stage

    def stage(progress, name, total=None, unit="", resumed=0):
        shown.append((name, total, unit, resumed))
        return original(progress, name, total, unit, resumed)

    monkeypatch.setattr(Progress, "stage", stage)
    return shown


# --- a run ---------------------------------------------------------------------------------------


def test_all_that_a_run_shows_and_keeps(files, stages, tmp_path, monkeypatch, capsys):
    written = []
    monkeypatch.setattr(report, "write_report", lambda path, *rest: written.append((path, *rest)))
    monkeypatch.setenv("DPO_LIB_REFERENCES", str(tmp_path / "references"))
    clock = itertools.cycle((100.0, 103.26))  # a run this short rounds to 0 s
    monkeypatch.setattr(train, "time", SimpleNamespace(monotonic=clock.__next__))
    out, (pairs, own) = tmp_path / "deep" / "run", files
    words = ["--data", str(pairs), "--eval-data", str(own), "--steps", "2", "--batch-size", "4"]
    words += ["--eval-every", "1", "--eval-pairs", "3", "--samples", "2", "--max-new-tokens", "4"]
    command = ["train", "--model", "tiny", "--out", str(out), *words, "--threads", "1"]
    assert main(command) == 0
    said, kept = capsys.readouterr(), json.loads((out / "run.json").read_text())
    assert said.err.splitlines()[:8] == [
        "data   16 pairs, 16 prompts",
        f"       16 to train on (8 are used, once each), 8 in {own}",
        "tokens prompt up to 7, chosen up to 10, rejected up to 13; no chat template",
        "       every column is used",
        "look   4 prompts of --eval-data are in --data too, with the same words",
        "model  tiny: 31,808 weights, 31,808 trained (every weight)",
        "how    loss dpo, beta 1, learning rate 0.0002, 2 updates of 4 pairs, seed 0",
        "eval   3 pairs 1 times on the way, 8 at the end: at most a fifth of the time "
        "(--eval-pairs and --eval-every take more)",
    ]
    assert stages == [
        ("starting", None, "", 0),
        (f"reading {pairs}", None, "", 0),
        ("loading tiny", None, "weights", 0),
        ("encoding the pairs", None, "", 0),
        ("answers before", 4, "tokens", 0),
        ("reference", 8, "pairs", 0),
        ("held-out pairs", 8, "pairs", 0),
        ("first update", None, "", 0),
        ("update", 2, "", 1),
        ("held-out pairs", 3, "pairs", 0),
        ("held-out pairs", 3, "pairs", 0),
        ("held-out pairs", 8, "pairs", 0),
        ("answers after", 8, "tokens", 0),
        ("KL of the answers", None, "", 0),
        ("saving the model and drawing the report", None, "", 0),
    ]
    results, decided = kept["results"], settings(
        out=str(out), data=(str(pairs),), eval_data=(str(own),), model="tiny", beta=1.0, lr=2e-4,
        steps=2, batch_size=4, eval_every=1, eval_pairs=3,
    ).identity()  # fmt: skip
    sums = {"data_sha256": digest_files(str(pairs)), "eval_data_sha256": digest_files(str(own))}
    machine = {"torch": torch.__version__, "threads": 1, "processes": 1}
    assert kept == {
        "settings": decided | sums, "data": [str(pairs)], "eval_data": [str(own)], "pairs": 16,
        "unit": "pairs", "held_out": 8, "skipped": {}, "finished": True, "results": results,
        "advice": kept["advice"], "machine": machine | {"python": platform.python_version()},
    }  # fmt: skip
    assert results["seconds"] == 3.3
    assert results["tokens"] == {"chosen": 6.0, "rejected": 6.0}
    final = results["held_out"]
    assert final["pairs_chosen_longer"] + final["pairs_chosen_shorter"] == 8
    assert "step" not in final
    rows = [*read_metrics(out / "metrics.jsonl")]
    scored = [row for row in rows if row["kind"] == "evaluation"]
    assert [row["held_out_pairs_chosen_longer"] for row in scored] == [2, 2, 2]  # of three pairs
    assert scored[0]["held_out_margin"] == 0 != scored[1]["held_out_margin"]
    ((path, run, history, samples),) = written
    assert (path, run) == (out / "report.html", kept)
    assert [row["loss"] for row in history.steps] == [
        row["loss"] for row in rows if row["kind"] == "update"
    ]
    assert samples == json.loads((out / "samples.json").read_text())
    asked = [json.loads(line)["prompt"] for line in own.read_text().splitlines()]
    assert len(samples) == 2
    assert {row["prompt"] for row in samples} < {*asked}
    names = {".lock", "run.json", "metrics.jsonl", "samples.json", "model"}
    assert {path.name for path in out.iterdir()} == names
    assert (out / "model" / "README.md").read_text().startswith("---\nlibrary_name: transformers\n")
    assert [*(tmp_path / "references").iterdir()]
    assert said.out == train._summary(out, kept) + "\n"
    capsys.readouterr()
    assert main(command) == 0
    assert capsys.readouterr().err == f"{out} is finished already; --restart trains again\n"


def test_what_is_said_at_the_end(tmp_path):
    final = {"accuracy": 0.5, "margin": 0.25, "chosen_logp": 1.0, "rejected_logp": -1.0}
    results = {"held_out": final, "tokens_before": 3.04, "tokens_after": 5.06}
    assert train._summary(tmp_path, {"results": results, "advice": ["b", "c"]}).splitlines() == [
        f"held out: {train.say_scores(final)}",
        "answers: 3.0 tokens before, 5.1 after",
        "note: b",
        "note: c",
        f"model  {tmp_path / 'model'}",
        f"report {tmp_path / 'report.html'}",
    ]
    said = train._summary(tmp_path, {"results": {"held_out": None}, "advice": []})
    assert said == f"model  {tmp_path / 'model'}\nreport {tmp_path / 'report.html'}"


def test_the_card_of_a_model_tells_its_license_and_its_base():
    model = torch.nn.Linear(1, 1)
    model.config = SimpleNamespace(_name_or_path="/folder/of/base")
    opened = SimpleNamespace(model=model)
    assert train._card(settings(model="SmolLM2", lora=4, full=False, seed=5), opened, "pairs") == (
        "---\nlicense: apache-2.0\nlibrary_name: peft\n---\n\n"
        "# SmolLM2, trained on preferences\n\n"
        "Trained by dpo_lib from `SmolLM2` (base) with the loss `dpo`: beta 0.25, learning rate "
        "2e-05, 7 updates of 3 pairs, LoRA of rank 4, seed 5. The license of the model it started "
        "from holds for it too.\n"
    )
    said = train._card(settings(model="a/tiny"), SimpleNamespace(model=None), "thumbs")
    assert "`a/tiny` (tiny) with " in said
    assert "3 thumbs, all weights, seed 0." in said


def test_the_loss_is_tried_before_the_model_is_loaded(files, tmp_path, monkeypatch, capsys):
    rows = [{"prompt": "a", "completion": "b", "label": up} for up in (True, False)]
    thumbs = write_lines(tmp_path / "thumbs", rows)
    monkeypatch.setattr(train, "open_model", pytest.fail)
    none = "loss {} has no setting 'gamma'; it has {}"
    for path, words, said in (
        (files[0], ["--loss", "rpo"], none.format("rpo", ["alpha"])),
        (files[0], [], none.format("dpo", ["label_smoothing"])),
        (thumbs, [], none.format("kto", ["kl", "desirable_weight", "undesirable_weight"])),
        (thumbs, ["--loss", "dpo"],
         "dpo_loss compares the two responses of a pair, but the data are thumbs, responses with "
         "a verdict each: the loss must be one of ['kto']"),
    ):  # fmt: skip
        words += ["--data", str(path), "--out", str(tmp_path / "a"), "--option", "gamma=1"]
        assert main(["train", *words]) == 2
        assert capsys.readouterr().err == f"error: {said}\n"


def test_what_is_typed_reaches_all_that_a_run_needs(files, stages, tmp_path, monkeypatch, capsys):
    out, model, calls = tmp_path / "run", torch.nn.Linear(1, 1), []
    opened, machines = SimpleNamespace(model=model), Processes()
    job = SimpleNamespace(settings=settings(seed=4))

    class Trackers:
        def __init__(self, *given):
            calls.append(("trackers", *given))

        def start(self, values):
            calls.append(("start", values))

        def close(self):
            calls.append("closed")

    def noted(name, result=None):
        return lambda *given: calls.append((name, *given)) or result

    def begin(found, processes, progress, trackers):
        calls.append((found, processes, type(progress), type(trackers)))
        raise KeyboardInterrupt

    chosen = noted("threads", contextlib.nullcontext())
    monkeypatch.setattr(machines, "place", noted("place"))
    monkeypatch.setattr(train, "Trackers", Trackers)
    monkeypatch.setattr(train.threads, "chosen", chosen)
    monkeypatch.setattr(train.Processes, "launched", lambda: machines)
    monkeypatch.setattr(train, "open_model", noted("open", opened))
    monkeypatch.setattr(train, "check_dtype", noted("dtype"))
    monkeypatch.setattr(train, "_threads_before", lambda settings: (settings.out, 3))
    monkeypatch.setattr(train, "_job", lambda own, found, read: job)
    monkeypatch.setattr(train, "_take_up", lambda found, processes: False)
    monkeypatch.setattr(train, "_introduction", lambda found: "introduced")
    monkeypatch.setattr(train, "_train", begin)
    words = ["--model", "m", "--data", *map(str, files), "--threads", "2", "--plain"]
    words += ["--dtype", "bfloat16", "--force-dtype", "--log-with", "tensorboard"]
    assert main(["train", "--out", str(out), *words]) == 130
    options = {"chat": False, "control_tokens": False, "answer_prefix": "", "template": {}}
    assert calls == [
        ("trackers", "tensorboard", out),
        ("threads", 2, machines.say, (str(out), 3)),
        ("open", "m", options),
        ("place", model),
        ("dtype", torch.device("cpu"), "bfloat16", True),
        ("start", job.settings.identity()),
        (job, machines, Progress, Trackers),
        "closed",
    ]
    assert stages[1][0] == f"reading {files[0]}, {files[1]}"
    assert capsys.readouterr().err == (
        "introduced\ninterrupted: no update was made yet; the same command begins again\n"
    )


# --- training ------------------------------------------------------------------------------------


@pytest.fixture
def calls(monkeypatch):
    """What a run calls, with fakes that compute nothing."""
    made = []

    def noted(name, result=None):
        return lambda *given, **named: made.append((name, *given, *named.values())) or result

    class Live:
        updated = "updated"

        def __init__(self, *given):
            made.append(("live", *given))
            self.metrics = SimpleNamespace(finish=noted("finish"))
            self.evaluated = noted("evaluated")
            self.evaluating = noted("evaluating", contextlib.nullcontext())
            self.watching = noted("watching", contextlib.nullcontext())

    class HeldOut:
        def __init__(self, *given):
            made.append(("held out", *given))
            self.rows = given[0]
            self.at_start = noted("at start", {"accuracy": 0.5})

        def __call__(self, *number, **named):
            made.append(("scored", *number, *named.items()))
            return {"accuracy": sum(name == "scored" for name, *_ in made) / 8}

    def train_dpo(*given, evaluate, **named):
        made.append(("train", *given, named))
        found = [evaluate("policy") for _ in range(3)] if evaluate else []
        return SimpleNamespace(evaluations=[{"step": i, **row} for i, row in enumerate(found)])

    for fake in (Live, HeldOut, train_dpo):
        monkeypatch.setattr(train, fake.__name__, fake)
    monkeypatch.setattr(train, "_log_probs", lambda job: f"log-probs of {job.opened.model}")
    monkeypatch.setattr(train, "_in_whole", noted("in whole", SimpleNamespace(model="whole")))
    monkeypatch.setattr(train, "_answers_before", noted("before"))
    monkeypatch.setattr(train, "_answers", noted("answers", {"kl": 1.0}))
    monkeypatch.setattr(train, "_finish", noted("end"))
    monkeypatch.setattr(train, "_reference_cache", lambda: "cache")
    monkeypatch.setattr(train, "lengths", lambda rows: f"lengths of {rows}")
    clock = itertools.cycle((100.0, 103.26))
    monkeypatch.setattr(train, "time", SimpleNamespace(monotonic=clock.__next__))
    return made


def job_to_train(out, first=None, start=()):
    used = PreferenceDataset([PreferenceRecord("p", "a", "b")] * 2, None, [{}] * 2)
    plan = first and Plan(final=3, first=first, every=2)
    return train._Job(
        settings=settings(out=str(out)), opened=SimpleNamespace(model="model", start=start),
        loss="loss", pairs=None, train=9, used=used,
        held_out=SimpleNamespace(rows=[1, 2, 3]) if plan else None, counts={}, plan=plan, notes=(),
    )  # fmt: skip


def trained(job, machines, progress="progress"):
    train._train(job, machines, progress, "trackers")


def test_a_run_trains_scores_answers_and_ends(calls, tmp_path):
    job = job_to_train(tmp_path, first=2)
    trained(job, ALONE)
    own = {
        "loss": "loss", "on_step": "updated", "checkpoint": tmp_path / "checkpoint.pt",
        "reference_cache": "cache", "progress": False, "log_probs": "log-probs of model",
        "accelerator": None,
    }  # fmt: skip
    history, kept = calls[-1][2], tmp_path / "held_out.json"
    assert calls == [
        ("held out", [1, 2, 3], "loss", 0.25, "log-probs of model", kept, True),
        ("before", job, "model", "progress"),
        ("live", tmp_path, 7, 2, "progress", "trackers", True, "pairs"),
        ("watching", "log-probs of model"),
        ("train", "model", None, job.used, job.settings.config(), own),
        ("evaluating", 3), ("at start", 2), ("evaluated", {"held_out_accuracy": 0.5}),
        ("evaluating", 2), ("scored", 2), ("evaluated", {"held_out_accuracy": 0.125}),
        ("evaluating", 2), ("scored", 2), ("evaluated", {"held_out_accuracy": 0.25}),
        ("evaluating", 3), ("scored", ("log_probs", "log-probs of model")),
        ("finish", history),
        ("answers", job, "progress"),
        ("end", job, history, {
            "seconds": 3.3, "held_out": {"accuracy": 0.375}, "tokens": "lengths of [{}, {}]",
            "kl": 1.0,
        }, "progress"),
    ]  # fmt: skip


def test_what_was_scored_a_moment_ago_is_not_scored_again(calls, tmp_path):
    (tmp_path / "checkpoint.pt").write_text("")  # gone on with, and with adapters
    trained(job_to_train(tmp_path, first=3, start=(1,)), ALONE)
    names = [name for name, *_ in calls]
    assert "before" not in names
    assert "at start" not in names
    assert [call for call in calls if call[0] == "scored"] == [("scored", 3)] * 3
    assert calls[-1][3]["held_out"] == {"accuracy": 0.375}


def test_without_held_out_pairs_none_are_scored(calls, tmp_path):
    trained(job_to_train(tmp_path), ALONE)
    assert not {name for name, *_ in calls} & {"held out", "evaluating", "evaluated", "scored"}
    assert calls[-1][3]["held_out"] is None


def test_of_many_processes_the_main_one_writes_and_all_wait(calls, tmp_path):
    machines = SimpleNamespace(
        main=False, sharded=True, accelerator="accelerator", wait=lambda: calls.append(("waited",))
    )
    job = job_to_train(tmp_path, first=2)
    trained(job, machines)
    names = [name for name, *_ in calls]
    assert (names[-1], calls[0][-1], calls[1][-2]) == ("waited", False, False)
    assert not {*names} & {"before", "finish", "answers", "end", "in whole"}
    calls.clear()
    machines.main = True
    trained(job, machines)
    (given,) = [call[-1] for call in calls if call[0] == "train"]
    assert given["accelerator"] == "accelerator"
    assert ("in whole", job) in calls
    whole = dataclasses.replace(job, opened=calls[-2][1].opened)
    assert whole.opened.model == "whole"
    assert ("scored", ("log_probs", "log-probs of whole")) in calls
    assert ("answers", whole, "progress") in calls
    assert calls[-2][:2] == ("end", whole)
    assert calls[-1] == ("waited",)


def test_the_model_replaces_the_old_one_when_it_is_whole(tmp_path, monkeypatch):
    for name in ("model", "model.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "old").write_text("")
    records.write_json(tmp_path / "run.json", {"finished": False})
    (tmp_path / "checkpoint.pt").write_text("")
    saved, advised = [], []

    def save(folder):
        assert not (tmp_path / "model").exists()
        folder.mkdir()
        saved.append(folder.name)

    monkeypatch.setattr(report, "advice", lambda *given: advised.append(given) or ["b"])
    monkeypatch.setattr(report, "write_report", lambda *_: None)
    job = job_to_train(tmp_path)
    job.opened.save, job.used.unit = save, "thumbs"
    run = train._write(job, "history", {"kl": 1.0})
    assert run == {"finished": True, "results": {"kl": 1.0}, "advice": ["b"]}
    assert (saved, advised) == (["model.partial"], [("history", {"kl": 1.0}, "dpo")])
    assert {path.name for path in tmp_path.iterdir()} == {"model", "run.json"}
    (card,) = (tmp_path / "model").iterdir()
    assert card.read_text() == train._card(job.settings, job.opened, "thumbs")


# --- what is trained on what ---------------------------------------------------------------------


ON_PAIRS = "note   kto on pairs: each counts as one thumb up and one thumb down"


def job_of(files, **values):
    own = RunSettings(out="o", data=(str(files[0]),), model="tiny", **values)
    return train._job(own, open_model("tiny"), train._read(own))


def test_what_is_decided_of_a_run(files):
    """With pairs of a file of their own, with a share, and with none held out."""
    few = {"steps": 2, "batch_size": 4}
    folds = [job_of(files, held_out=0.3, seed=seed, **few).prompts for seed in (0, 1)]
    assert {*folds[0]} != {*folds[1]}
    usual = job_of(files, held_out=0.3, **few)
    assert (usual.train, len(usual.used), len(usual.pairs.dataset)) == (11, 8, 16)
    assert usual.counts == {"pairs": 16, "unit": "pairs", "held_out": 5, "skipped": {}}
    assert usual.plan == train.plan(2, 4, False, 1.0, 5)
    assert (usual.settings.eval_every, usual.settings.eval_pairs) == (2, 5)
    assert len(usual.held_out) == 5
    trained = {record.prompt for record in usual.used.records}
    assert not trained & {*usual.prompts}
    assert usual.loss is LOSSES["dpo"]
    assert usual.notes == ()
    none = job_of(files, held_out=0.0, steps=4, batch_size=4, loss="kto")
    assert (none.plan, none.held_out, none.counts["held_out"]) == (None, None, 0)
    assert len(none.used) == none.train == 16 == len(none.prompts)
    assert none.used is none.pairs.dataset
    assert none.notes == (ON_PAIRS,)
    own = job_of(files, eval_data=(str(files[1]),), eval_pairs=3, **few)
    assert own.plan == Plan(final=8, first=3, every=own.settings.eval_every)
    assert own.settings.eval_pairs == 3
    every = job_of(files, eval_data=(str(files[1]),), eval_every=1, **few)
    assert every.plan == Plan(final=8, first=8, every=1)
    assert len(every.used) == 8


def test_all_that_is_worth_a_look_is_told(files, tmp_path, monkeypatch):
    twice = "look   {} prompts of --eval-data are in --data too, with the same words"
    both = job_of(files, eval_data=(str(files[0]),), loss="kto")
    assert both.notes == (twice.format(16), ON_PAIRS)
    rows = [{"prompt": "List two metals.", "completion": "gold.", "label": True}]
    thumbs = write_lines(tmp_path / "thumbs", [*rows, {**rows[0], "label": False}])
    seen = []
    monkeypatch.setattr(data, "about_thumbs", lambda *given: seen.append(given) or "uneven")
    job = job_of([thumbs], eval_data=(str(thumbs),), option=(("desirable_weight", 2.0),))
    assert job.notes == (twice.format(1), "look   uneven")
    assert seen == [(job.pairs.dataset.records, {"desirable_weight": 2.0})]
    assert (job.settings.loss, job.settings.batch_size) == ("kto", 64)
    assert job.loss.func is unpaired_kto_loss
    monkeypatch.setattr(data, "about_thumbs", lambda *given: None)
    assert job_of([thumbs], held_out=0.0).notes == ()


def test_adapters_decide_what_is_trained(files, monkeypatch):
    seen, completed = [], RunSettings.completed
    monkeypatch.setattr(
        RunSettings,
        "completed",
        lambda self, *given: seen.append(given) or completed(self, *given),
    )
    monkeypatch.setattr(OpenModel, "prepare", lambda self, *given: seen.append(given))
    monkeypatch.setattr(OpenModel, "adapter_rank", 5)
    monkeypatch.setattr(train, "is_tiny", lambda model: False)
    assert job_of(files, seed=3, held_out=0.0).settings.lora == 5
    assert seen == [(False, 16, 5, False), (5, 3)]


def test_bad_rows_of_both_files_are_counted_together(files, tmp_path):
    row = {"prompt": "List two metals.", "chosen": "gold.", "rejected": "gold."}
    empty = {"prompt": "List two metals.", "chosen": "gold.", "rejected": ""}
    both = []
    for path, rows in zip(files, ([row, empty], [row]), strict=True):
        both.append(tmp_path / path.name)
        write_lines(both[-1], [*map(json.loads, path.read_text().splitlines()), *rows])
    job = job_of(both, eval_data=(str(both[1]),), skip_bad=True)
    assert job.counts["skipped"] == {"identical": 2, "empty": 1}


def test_thumbs_and_pairs_are_not_taken_for_each_other(files, tmp_path):
    thumbs = [{"prompt": "a", "completion": "b", "label": up} for up in (True, False)]
    other = write_lines(tmp_path / "thumbs", thumbs)
    for one, two, kinds in ((files[0], other, "pairs thumbs"), (other, files[0], "thumbs pairs")):
        first, second = kinds.split()
        with pytest.raises(ValueError, match=f"^--data holds {first}, --eval-data {second}$"):
            train._read(RunSettings(out="o", data=(str(one),), eval_data=(str(two),)))


def test_how_long_held_out_pairs_are_decides_how_many_are_scored(monkeypatch):
    def pairs(*sizes):
        names = ("prompt", "chosen", "rejected")
        rows = [{n: [1] * s for n, s in zip(names, size, strict=True)} for size in sizes]
        return PreferenceDataset([PreferenceRecord("p", "a", "b")] * len(rows), None, rows)

    used, held_out = pairs((1, 1, 2), (2, 3, 3)), pairs((4, 4, 4))
    monkeypatch.setattr(train, "plan", lambda *given: given)
    assert train._plan(settings(), used, held_out) == (7, 3, False, 2.0, 1)
    assert train._plan(settings(lora=4, full=False), held_out, used) == (7, 3, True, 0.5, 2)


def test_what_is_said_of_adapters_and_of_few_evaluations(monkeypatch):
    monkeypatch.setattr(data, "describe", lambda records, skipped: f"{records} {skipped}")
    job = SimpleNamespace(
        settings=settings(model="base", lora=4, full=False, seed=5, eval_data=("e", "f")),
        opened=SimpleNamespace(model=torch.nn.Linear(1100, 1)),
        pairs=SimpleNamespace(records="records", introduce=lambda: "tokens"),
        train=14,
        used=SimpleNamespace(unit="pairs"),
        counts={"skipped": {"empty": 1}, "held_out": 9},
        plan=None,
        notes=("look   one", "look   two"),
    )
    assert train._introduction(job).splitlines() == [
        "data   records {'empty': 1}",
        "       14 to train on (1.5 passes), 9 in e, f",
        "tokens",
        "look   one",
        "look   two",
        "model  base: 1,101 weights, 1,101 trained (LoRA of rank 4)",
        "how    loss dpo, beta 0.25, learning rate 2e-05, 7 updates of 3 pairs, seed 5",
    ]
    more = ": at most a fifth of the time (--eval-pairs and --eval-every take more)"
    for plan, said in (
        (Plan(9, 9, 2), "9 pairs 3 times on the way, 9 at the end"),
        (Plan(9, 8, 2), "8 pairs 3 times on the way, 9 at the end" + more),
        (Plan(8, 8, 2), "8 pairs 3 times on the way, 8 at the end" + more),
        (Plan(9, 9, 7), "9 at the end" + more),
    ):
        job.plan = plan
        assert train._say_plan(job) == said


# --- answers -------------------------------------------------------------------------------------


def test_answers_are_asked_for_once_before_and_once_after(stages, tmp_path, monkeypatch):
    asked, model, was = [], torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)

    @dataclasses.dataclass
    class Opened:
        model: torch.nn.Module
        start: dict

        @contextlib.contextmanager
        def as_it_was(self):
            yield was

    def answer_before(out, opened, prompts, new):
        opened.model(torch.ones(1))
        asked.append(("before", out, opened.model, prompts, new))

    def answers_after(out, opened, prompts, new, seed):
        opened.model(torch.ones(1))
        asked.append(("after", out, opened.model, prompts, new, seed))
        return {"tokens_after": 3.0}, "drawn"

    def kl_from_start(opened, drawn):
        opened.model(torch.ones(1))
        asked.append(("kl", opened.model, drawn))
        return {"kl": 0.5}

    for function in (answer_before, answers_after, kl_from_start):
        monkeypatch.setattr(train, function.__name__, function)
    prompts = [f"{i}" for i in range(BATCH + 2)]
    decided = settings(samples=BATCH + 1, max_new_tokens=5, seed=8)
    for start, first in (({}, []), ({"a": 1}, [("before", tmp_path, was, prompts[:-1], 5)])):
        job = SimpleNamespace(
            out=tmp_path, settings=decided, prompts=prompts, opened=Opened(model, start)
        )
        with Progress(False) as progress:
            found = train._answers(job, progress)
        assert found == {"tokens_after": 3.0, "kl": 0.5}
        after = [("after", tmp_path, model, prompts, 5, 8), ("kl", model, "drawn")]
        assert asked == first + after
        asked.clear()
    after = [("answers after", 15, "tokens", 0), ("KL of the answers", None, "", 0)]
    assert stages == [*after, ("answers before", 10, "tokens", 0), *after]
    job.prompts = prompts[:1]
    train._answers(job, Progress(False))
    assert [total for _, total, *_ in stages[-3:]] == [5, 10, None]


# --- a folder that is there already --------------------------------------------------------------


def job_in(out, **values):
    (out.parent / "data").write_text("x")
    opened = SimpleNamespace(start={}, continued=False, start_digest=lambda: "digest")
    own = settings(out=str(out), data=(str(out.parent / "data"),), **values)
    counts = {"pairs": 4, "unit": "pairs", "held_out": 1, "skipped": {"empty": 2}}
    return SimpleNamespace(out=out, settings=own, opened=opened, counts=counts)


def test_a_folder_is_taken_up_by_the_same_run_alone(tmp_path, capsys):
    out = tmp_path / "run"
    out.mkdir()
    assert train._take_up(job_in(out), other()) is False
    assert [*out.iterdir()] == []
    assert train._take_up(job_in(out), ALONE) is False
    kept, pairs = records.read_run(out), str(tmp_path / "data")
    assert kept == {
        "settings": job_in(out).settings.identity() | {"data_sha256": digest_files(pairs)},
        "data": [pairs], "eval_data": [], "finished": False,
        "pairs": 4, "unit": "pairs", "held_out": 1, "skipped": {"empty": 2},
        "machine": {
            "torch": torch.__version__, "threads": torch.get_num_threads(), "processes": 1,
            "python": platform.python_version(),
        },
    }  # fmt: skip
    records.write_json(out / "run.json", kept | {"finished": True})
    assert train._take_up(job_in(out), ALONE) is True
    assert capsys.readouterr().err == ""
    message = (
        rf"^{out} holds another run \(loss was 'dpo', is 'ipo'; seed was 0, is 4\); use another "
        "--out, or --restart to drop it$"
    )
    with pytest.raises(ValueError, match=message):
        train._take_up(job_in(out, seed=4, loss="ipo"), ALONE)
    threads = torch.get_num_threads()
    kept["machine"]["threads"] = threads + 1
    records.write_json(out / "run.json", kept)
    assert train._threads_before(job_in(out).settings) == threads + 1
    assert train._threads_before(job_in(out, restart=True).settings) is None
    assert train._threads_before(job_in(tmp_path / "none").settings) is None
    assert train._take_up(job_in(out), ALONE) is False
    said = f"threads were {threads + 1}, are {threads}: last bits may differ\n"
    assert capsys.readouterr().err == said
    assert train._take_up(job_in(out, restart=True), other()) is False
    assert records.read_run(out) == kept
    assert train._take_up(job_in(out, restart=True), ALONE) is False
    assert records.read_run(out)["machine"]["threads"] == threads


@pytest.mark.parametrize(
    ("start", "continued", "known"),
    [({}, True, False), ({"a": 1}, False, False), ({"a": 1}, True, True)],
)
def test_adapters_that_are_trained_further_belong_to_the_run(tmp_path, start, continued, known):
    job = job_in(tmp_path / "run")
    job.out.mkdir()
    job.opened.start, job.opened.continued = start, continued
    train._take_up(job, ALONE)
    found = records.read_run(job.out)["settings"].get("adapter_sha256")
    assert found == ("digest" if known else None)


def test_one_process_writes_into_a_folder_that_can_be_made(tmp_path):
    out = tmp_path / "a" / "b"
    with train._locked(out, other()):
        assert not out.parent.exists()
    for _ in range(2):
        with train._locked(out, ALONE):
            assert (out / ".lock").exists()
            message = f"^another process is training in {out}"
            with pytest.raises(ValueError, match=message), train._locked(out, ALONE):
                pass
    (tmp_path / "file").write_text("")
    message = rf"^cannot write to {tmp_path}/file/c: \[Errno 20\] Not a directory: .*/file/c'$"
    with pytest.raises(ValueError, match=message), train._locked(tmp_path / "file" / "c", ALONE):
        pass


def failing(error):
    def fail(*_):
        raise error

    return fail


def test_an_interruption_says_where_the_run_stands(tmp_path, monkeypatch):
    def said():
        with pytest.raises(KeyboardInterrupt) as stop, train._interruptible(tmp_path):
            raise KeyboardInterrupt
        assert stop.value.__suppress_context__
        return str(stop.value)

    none = "no update was made yet; the same command begins again"
    assert said() == none
    run = {"settings": {"steps": 9}, "machine": {}, "finished": False, "held_out": 0}
    records.write_json(tmp_path / "run.json", run)
    assert said() == none
    (tmp_path / "checkpoint.pt").write_text("")
    for error in (OSError, ValueError, KeyError, RuntimeError):  # it cannot be read
        monkeypatch.setattr(train, "updates_in", failing(error))
        assert said() == none
    monkeypatch.setattr(train, "updates_in", lambda file: 4 if file.is_file() else None)
    (tmp_path / "run.json").unlink()
    assert said() == none
    records.write_json(tmp_path / "run.json", run)
    kept = f"4 of 9 updates are kept in {tmp_path}; the same command goes on from there"
    assert said() == kept
    records.write_json(tmp_path / "run.json", run | {"finished": True})
    assert said() == f"the run is finished, its report is {tmp_path / 'report.html'}"


def test_references_are_kept_in_the_cache_unless_another_folder_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "cache_folder", lambda: tmp_path)
    monkeypatch.delenv("DPO_LIB_REFERENCES", raising=False)
    assert train._reference_cache() == tmp_path / "references"
    monkeypatch.setenv("DPO_LIB_REFERENCES", str(tmp_path / "own"))
    assert train._reference_cache() == tmp_path / "own"


# --- many processes ------------------------------------------------------------------------------


def test_a_model_that_was_spread_is_put_together(tmp_path, monkeypatch):
    opened, prepared = [], []

    def open_again(name, options):
        opened.append((name, options))
        return OpenModel(name, torch.nn.Sequential(torch.nn.Linear(2, 1)), None)

    monkeypatch.setattr(train, "open_model", open_again)
    monkeypatch.setattr(OpenModel, "prepare", lambda self, *how: prepared.append(how))
    state = {"model.0.weight": torch.tensor([[1.0, 2.0]]), "0.bias": torch.tensor([3.0])}
    asked = []
    monkeypatch.setattr(train, "trained_weights", lambda path: asked.append(path) or state)
    job = SimpleNamespace(
        out=tmp_path,
        settings=settings(lora=4, full=False, seed=6),
        opened=SimpleNamespace(name="base", options={"chat": None}),
    )
    whole = train._in_whole(job).model
    assert (whole[0].weight.tolist(), whole[0].bias.tolist()) == ([[1.0, 2.0]], [3.0])
    assert (opened, prepared) == ([("base", {"chat": None})], [(4, 6)])
    assert asked == [tmp_path / "checkpoint.pt"]
    own = OpenModel("own", torch.nn.ModuleDict({"model": torch.nn.Linear(1, 1)}), None)
    with pytest.MonkeyPatch.context() as patch:  # a name that begins with model. of itself
        patch.setattr(train, "open_model", lambda *_: own)
        patch.setattr(train, "trained_weights", lambda _: {"model.bias": torch.tensor([5.0])})
        assert train._in_whole(job).model["model"].bias.tolist() == [5.0]
    del state["0.bias"]  # what is not trained is not there
    train._in_whole(job)
    state |= dict.fromkeys("abcd", torch.ones(1))
    message = r"^the checkpoint has parameters that the model lacks: \['a', 'b', 'c'\]$"
    with pytest.raises(ValueError, match=message):
        train._in_whole(job)
