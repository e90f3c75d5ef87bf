"""``train`` on the tiny model: resuming after SIGKILL, its files, and its errors."""

import inspect
import json
import os
import signal
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dpo_lib.cli import main
from dpo_lib.cli.records import Metrics, read_metrics
from dpo_lib.data import read_jsonl, split_by_prompt, write_jsonl
from dpo_lib.losses import LOSSES, as_loss_function, takes_lengths, uses_reference
from dpo_lib.losses.form import FOUR, LENGTHS
from dpo_lib.training import DPOConfig, TrainingHistory
from dpo_lib.world import label_by_reward, load_pairs

ROOT = Path(__file__).resolve().parents[2]
STEPS = 12
OPTIONS = ["--model", "tiny", "--steps", str(STEPS), "--batch-size", "16", "--eval-every", "3"]
OPTIONS += ["--lr", "5e-4"]


@pytest.fixture(scope="module")
def preferences(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "prefs.jsonl"
    write_jsonl(path, label_by_reward(load_pairs(), 0)[::2])
    return path


@pytest.fixture(scope="module")
def finished(preferences, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert main(["train", "--data", str(preferences), "--out", str(out), *OPTIONS]) == 0
    return out


def train(preferences, out, *more):
    return main(["train", "--data", str(preferences), "--out", str(out), *OPTIONS, *more])


def test_a_run_leaves_its_files_and_no_others(finished):
    names = {path.name for path in finished.iterdir()}
    assert names == {".lock", "run.json", "metrics.jsonl", "samples.json", "report.html", "model"}
    run = json.loads((finished / "run.json").read_text())
    assert run["finished"]
    assert run["pairs"] == 396
    assert run["results"]["held_out"]["accuracy"] > 0.5
    assert run["results"]["kl"] > -1


def test_metrics_have_every_update_and_evaluation_once(finished):
    rows = list(read_metrics(finished / "metrics.jsonl"))
    updates = [row for row in rows if row["kind"] == "update"]
    evaluations = [row["step"] for row in rows if row["kind"] == "evaluation"]
    assert [row["step"] for row in updates] == list(range(STEPS))
    assert evaluations == [0, 3, 6, 9, 12]
    assert updates[0]["loss"] == pytest.approx(0.6931, abs=1e-4)
    assert rows[0]["held_out_accuracy"] == 0.5


def test_answers_are_shown_to_prompts_that_were_held_out(preferences, finished):
    _, held_out = split_by_prompt(read_jsonl(preferences), 0.1, 0)
    asked = [row["prompt"] for row in json.loads((finished / "samples.json").read_text())]
    assert len(asked) == len({*asked}) == 6
    assert {*asked} <= {record.prompt for record in held_out}
    assert "the prompts were not trained on" in (finished / "report.html").read_text()


def test_reference_log_probs_are_kept_between_runs(preferences, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DPO_LIB_REFERENCES", str(tmp_path / "kept"))
    assert train(preferences, tmp_path / "a", "--steps", "1") == 0
    (file,) = (tmp_path / "kept").iterdir()
    chosen, rejected = torch.load(file)
    torch.save((chosen - 5.0, rejected), file)  # what is kept is used
    assert train(preferences, tmp_path / "b", "--steps", "1", "--lr", "1e-3") == 0
    assert [*(tmp_path / "kept").iterdir()] == [file]
    rows = [r for r in read_metrics(tmp_path / "b" / "metrics.jsonl") if r["kind"] == "update"]
    assert rows[0]["chosen_logp"] == pytest.approx(5.0, abs=1e-4)


@pytest.mark.filterwarnings("default")  # elsewhere tests take a warning for an error
def test_no_place_for_reference_log_probs(preferences, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DPO_LIB_REFERENCES", str(tmp_path / "file" / "folder"))
    assert train(preferences, tmp_path / "a", "--steps", "1") == 0
    (line,) = (x for x in capsys.readouterr().err.splitlines() if "not kept" in x)
    assert line == (
        "note   the reference's log-probabilities are not kept for the next run: "
        f"{tmp_path / 'file' / 'folder'}: Not a directory"
    )


@pytest.mark.parametrize("kills", [(2, 7)])
def test_a_killed_run_ends_with_the_same_bits(preferences, finished, tmp_path, kills):
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "dpo_lib", "train", "--data", str(preferences)]
    command += ["--out", str(out), *OPTIONS]
    metrics = out / "metrics.jsonl"

    def updates():
        return sum(row["kind"] == "update" for row in read_metrics(metrics))

    for number in kills:
        log = tmp_path / "log.txt"
        with log.open("w") as file, subprocess.Popen(command, stderr=file) as process:
            deadline = time.monotonic() + 240
            while updates() < number and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.001)
            process.send_signal(signal.SIGKILL)
        assert process.returncode in (-signal.SIGKILL, 0), log.read_text()
    assert not (out / "model").exists()
    last = subprocess.run(command, capture_output=True, text=True)
    assert last.returncode == 0, last.stderr
    for name in ("metrics.jsonl", "samples.json"):
        assert (out / name).read_text() == (finished / name).read_text()
    ours, whole = (load_file(run / "model" / "tiny_gpt.safetensors") for run in (out, finished))
    assert all(torch.equal(ours[name], whole[name]) for name in whole)
    assert {path.name for path in out.iterdir()} == {path.name for path in finished.iterdir()}


@pytest.mark.parametrize("checkpoint", [0, 3, 6])
def test_no_row_is_lost_or_doubled(tmp_path, checkpoint):
    path = tmp_path / "metrics.jsonl"
    history = TrainingHistory(DPOConfig())
    history.steps = [{"step": i, "loss": 0.5} for i in range(9)]
    history.evaluations = [{"step": i, "accuracy": 0.5} for i in (0, 3, 6, 9)]

    def play(metrics, first, last, with_first_evaluation):
        for i in range(first, last):
            if i % 3 == 0 and (i > first or with_first_evaluation):
                metrics.add_evaluation({"accuracy": 0.5})
            metrics.add_update(history.steps[i])

    play(Metrics(path), 0, 8, True)
    with path.open("a") as file:
        file.write('{"kind": "upd')  # what a kill can leave
    again = Metrics(path)
    play(again, checkpoint, 9, False)  # the checkpoint holds the evaluation at its own step
    again.add_evaluation({"accuracy": 0.5})
    before = path.read_text()
    again.finish(history)
    assert path.read_text() == before


def test_the_same_command_again_does_nothing(preferences, finished, capsys):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*.*") if path.is_file()}
    assert train(preferences, finished) == 0
    assert "finished already" in capsys.readouterr().err
    threads = json.loads((finished / "run.json").read_text())["machine"]["threads"]
    assert train(preferences, finished, "--threads", str(threads + 1)) == 0
    said = capsys.readouterr().err
    assert f"threads were {threads}, are {threads + 1}: last bits may differ\n" in said
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_another_run_is_not_mixed_in(preferences, finished, capsys):
    assert train(preferences, finished, "--seed", "3", "--lr", "1e-3") == 2
    error = capsys.readouterr().err
    assert "holds another run" in error
    assert "seed was 0, is 3" in error
    assert "lr was 0.0005, is 0.001" in error


def test_restart_drops_the_old_run_and_nothing_else(preferences, tmp_path):
    out = tmp_path / "run"
    assert train(preferences, out, "--steps", "2", "--quiet") == 0
    (out / "notes.txt").write_text("mine")
    assert train(preferences, out, "--steps", "1", "--quiet", "--restart") == 0
    assert json.loads((out / "run.json").read_text())["settings"]["steps"] == 1
    assert (out / "notes.txt").read_text() == "mine"


def test_one_process_at_a_time(preferences, tmp_path, capsys):
    from filelock import FileLock

    (tmp_path / "run").mkdir()
    with FileLock(tmp_path / "run" / ".lock"):
        assert train(preferences, tmp_path / "run") == 2
    assert "another process is training" in capsys.readouterr().err


def test_without_held_out_pairs(preferences, tmp_path, capsys):
    out = tmp_path / "run"
    options = ["--held-out", "0", "--steps", "2", "--loss", "ipo", "--samples", "0"]
    assert train(preferences, out, *options) == 0
    run = json.loads((out / "run.json").read_text())
    assert run["results"]["held_out"] is None
    assert run["settings"]["beta"] == 0.1 or run["settings"]["beta"] == 1.0
    assert "0 held out" in capsys.readouterr().err
    assert "NaN" not in (out / "report.html").read_text()


@pytest.mark.parametrize("name", [*LOSSES, "reference_free"])
def test_each_loss_by_name(preferences, tmp_path, name):
    loss, out = as_loss_function(name), tmp_path / "run"
    needed = ["--option", "offset=0.7"] if name == "odpo" else []
    few = ["--steps", "1", "--batch-size", "4", "--held-out", "0", "--samples", "0", "--quiet"]
    assert train(preferences, out, "--loss", name, *few, *needed) == 0
    (row,) = (r for r in read_metrics(out / "metrics.jsonl") if r["kind"] == "update")
    assert row["grad_norm"] > 0
    if uses_reference(loss) and not takes_lengths(loss):  # the policy is the reference still
        options = {"offset": 0.7} if needed else {}
        expected = loss(-9.0, -9.0, -9.0, -9.0, beta=1.0, **options).losses.item()
        assert row["loss"] == pytest.approx(expected, rel=1e-4)


OWN = {name: {*inspect.signature(loss).parameters} for name, loss in LOSSES.items()}
SETTINGS = {*chain(*OWN.values())} - {*FOUR, *LENGTHS, "beta"}


@pytest.mark.parametrize("name", LOSSES)
def test_the_settings_of_another_loss_are_refused(preferences, tmp_path, capsys, name):
    for setting in sorted(SETTINGS - OWN[name]):
        options = ["--quiet", "--loss", name, "--option", f"{setting}=1"]
        assert train(preferences, tmp_path / "run", *options) == 2
        error = capsys.readouterr().err
        assert f"loss {name} has no setting {setting!r}; it has " in error
        assert error.count("\n") == 1


def test_a_setting_of_the_loss(preferences, tmp_path, capsys):
    options = ["--steps", "1", "--loss", "rpo", "--quiet"]
    losses = []
    for number, alpha in enumerate(("0", "2")):
        out = tmp_path / str(number)
        assert train(preferences, out, *options, "--option", f"alpha={alpha}") == 0
        losses += [r["loss"] for r in read_metrics(out / "metrics.jsonl") if r["kind"] == "update"]
    assert losses[0] == pytest.approx(0.6931, abs=1e-4)
    assert losses[1] > 1
    assert train(preferences, tmp_path / "c", *options, "--option", "gamma=1") == 2
    assert "has no setting 'gamma'; it has ['alpha']" in capsys.readouterr().err


# --- errors --------------------------------------------------------------------------------------


def write_lines(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


BAD = [
    {"prompt": "List two metals.", "chosen": "gold, iron.", "rejected": "iron."},
    {"prompt": "List two metals.", "chosen": "gold.", "rejected": "gold."},
    {"prompt": "List two metals.", "chosen": "", "rejected": "gold."},
    {"prompt": "Bonjour", "chosen": "gold.", "rejected": "iron."},
    {"prompt": "List two metals.", "chosen": "gold. " * 40, "rejected": "iron."},
    {"prompt": "List two metals.", "chosen": "gold."},
    {"prompt": "List three fruits.", "chosen": "apple, pear, plum.", "rejected": "apple."},
]


def test_bad_lines_stop_with_their_numbers(tmp_path, capsys):
    path = write_lines(tmp_path / "bad.jsonl", BAD)
    assert train(path, tmp_path / "run") == 2
    error = capsys.readouterr().err
    assert "3 of 7 rows are bad (1 identical, 1 empty, 1 malformed)" in error
    for line, kind in ((2, "identical"), (3, "empty"), (6, "malformed")):
        assert f"\nline {line}: {kind}: " in error
    assert "--skip-bad leaves them out" in error
    assert "Traceback" not in error
    assert not (tmp_path / "run" / "run.json").exists()


def test_pairs_that_the_model_cannot_read_are_bad_lines(tmp_path, capsys):
    path = write_lines(tmp_path / "bad.jsonl", [BAD[0], BAD[3], BAD[4], BAD[6]])
    assert train(path, tmp_path / "run") == 2
    error = capsys.readouterr().err
    assert "line 2: unknown words: text has words outside the vocabulary: ['Bonjour']" in error
    assert "line 3: too long: prompt and response have 85 tokens, above 48" in error


def test_skip_bad_counts_what_it_leaves_out(tmp_path, capsys):
    path = write_lines(tmp_path / "bad.jsonl", BAD)
    options = ["--skip-bad", "--held-out", "0.5", "--steps", "1", "--batch-size", "1"]
    assert train(path, tmp_path / "run", *options) == 0
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    kinds = ("identical", "empty", "malformed", "unknown words", "too long")
    assert run["skipped"] == dict.fromkeys(kinds, 1)
    assert run["pairs"] == 2
    error = capsys.readouterr().err
    assert "line 2: identical" in error
    assert "skipped: 1 empty, 1 identical, 1 malformed, 1 too long, 1 unknown words" in error
    assert "1 unknown words" in (tmp_path / "run" / "report.html").read_text()


def test_nothing_left_is_an_error(tmp_path, capsys):
    path = write_lines(tmp_path / "bad.jsonl", BAD[1:4])
    assert train(path, tmp_path / "run", "--skip-bad") == 2
    assert "no row is left" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--lora", "8"], "--lora is for models of transformers"),
        (["--max-length", "100"], "above what the model can read (48)"),
        (["--held-out", "0.001"], "empties a side"),
        (["--model", "./nowhere"], "is not a folder"),
        (["--option", "alpha=1"], "loss dpo has no setting 'alpha'"),
        (["--accumulate", "17"], "accumulate must be at most batch_size (16), got 17"),
    ],
)
def test_wrong_settings_are_one_line(preferences, tmp_path, capsys, options, message):
    assert train(preferences, tmp_path / "run", *options) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: command"),
        (["train", "--out", "x"], "required: --data"),
        (["train", "--data", "x", "--out", "x", "--beta", "0"], "must be above 0"),
        (["train", "--data", "x", "--out", "x", "--steps", "0"], "must be at least 1"),
        (["train", "--data", "x", "--out", "x", "--held-out", "1"], "below 1"),
        (["train", "--data", "x", "--out", "x", "--map", "a"], "form a=b"),
        (["train", "--data", "x", "--out", "x", "--loss", "no"], "invalid choice"),
        (["train", "--data", "x", "--out", "x", "--lora", "4", "--full"], "not allowed with"),
    ],
)
def test_wrong_usage(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_a_missing_file(tmp_path, capsys):
    assert train(tmp_path / "no.jsonl", tmp_path / "run") == 2
    assert "there is no file" in capsys.readouterr().err


def test_the_help_names_every_loss_and_needs_no_torch():
    from dpo_lib.cli.parser import FORMER_LOSS_NAMES, LOSS_NAMES
    from dpo_lib.losses import ALIASES

    assert (*LOSSES,) == LOSS_NAMES
    assert (*ALIASES,) == FORMER_LOSS_NAMES


def test_the_annotators_file_can_be_trained_on(tmp_path):
    from dpo_lib.widgets.clicks import pairs, rows_of

    judged = [{"choice": "first", "seconds": 1.5} for _ in pairs()]
    path = write_lines(tmp_path / "preferences.jsonl", rows_of(pairs(), judged))
    assert len(read_jsonl(path)) == 24
    assert train(path, tmp_path / "run", "--steps", "1", "--quiet") == 0
    assert Path(tmp_path / "run" / "model" / "tiny_gpt.safetensors").exists()


def test_control_c_before_the_command_has_begun(tmp_path):
    """The package imports nothing heavy, so the command line is there to answer."""
    (tmp_path / "torch.py").write_text("import signal; signal.raise_signal(signal.SIGINT)\n")
    command = [sys.executable, "-m", "dpo_lib", "sample", "--model", "tiny", "--prompt", "a"]
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stdout) == (130, "")
    assert run.stderr.count("\n") == 1
    assert run.stderr.startswith("interrupted")


def test_control_c_keeps_every_update_that_was_made(preferences, finished, tmp_path):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "dpo_lib", "train", "--data", str(preferences)]
    command += ["--out", str(out), *OPTIONS]
    metrics, log = out / "metrics.jsonl", tmp_path / "log.txt"
    with log.open("w") as file, subprocess.Popen(command, stderr=file) as process:
        while sum(row["kind"] == "update" for row in read_metrics(metrics)) < 5:
            assert process.poll() is None, log.read_text()
            time.sleep(0.001)
        process.send_signal(signal.SIGINT)
    assert process.returncode == 130
    said = log.read_text()
    assert "Traceback" not in said
    last = said.splitlines()[-1]
    kept = len(json.loads(torch.load(out / "checkpoint.pt", weights_only=True)["history"])[0])
    assert last == (
        f"interrupted: {kept} of {STEPS} updates are kept in {out}; the same command goes on "
        "from there"
    )
    assert kept >= 5
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert metrics.read_text() == (finished / "metrics.jsonl").read_text()
    ours, whole = (load_file(run / "model" / "tiny_gpt.safetensors") for run in (out, finished))
    assert all(torch.equal(ours[name], whole[name]) for name in whole)


@pytest.mark.parametrize("text", ['{"settings": {', "", "\x00", "{}", "[]", '{"settings": {}}'])
def test_a_damaged_run_names_the_file_and_the_remedy(preferences, tmp_path, capsys, text):
    out = tmp_path / "run"
    out.mkdir()
    (out / "run.json").write_text(text)
    assert train(preferences, out, "--steps", "1") == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {out / 'run.json'} is damaged (")
    assert "--restart" in error
    assert error.count("\n") == 1
    assert train(preferences, out, "--steps", "1", "--restart") == 0


def interrupt(preferences, out, *more):
    """Press Ctrl-C when the first checkpoint has been written."""
    from dpo_lib.training import loop

    original = loop.write_checkpoint
    with pytest.MonkeyPatch.context() as patch:

        def stop(path, *rest):
            original(path, *rest)
            raise KeyboardInterrupt

        patch.setattr(loop, "write_checkpoint", stop)
        assert train(preferences, out, *more) == 130


def test_a_clock_that_is_set_back_changes_nothing(
    preferences, finished, tmp_path, monkeypatch, capsys
):
    """What was written seems to come from the future, and what is written now from long ago."""
    out, references = tmp_path / "run", tmp_path / "references"
    monkeypatch.setenv("DPO_LIB_REFERENCES", str(references))
    interrupt(preferences, out)
    kept = [path for folder in (out, references) for path in folder.rglob("*")]
    for path in kept:
        os.utime(path, (2e9, 2e9))
    monkeypatch.setattr(time, "time", lambda: 1e9)
    monkeypatch.setattr(time, "time_ns", lambda: 10**18)
    capsys.readouterr()
    assert train(preferences, out) == 0
    assert "rror" not in capsys.readouterr().err
    for name in ("metrics.jsonl", "samples.json"):
        assert (out / name).read_text() == (finished / name).read_text()
    assert {path for path in kept if path.suffix == ".pt"} > {*references.iterdir()} != set()


@pytest.mark.parametrize("keep", [0, 100, -100])
def test_a_cut_checkpoint_names_the_file_and_the_remedy(preferences, tmp_path, capsys, keep):
    out = tmp_path / "run"
    interrupt(preferences, out, "--steps", "2")
    path = out / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:keep])
    capsys.readouterr()
    assert train(preferences, out, "--steps", "2") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: checkpoint {path} is empty, cut off, damaged or no checkpoint")
    assert "--restart" in error
    assert train(preferences, out, "--steps", "2", "--restart") == 0


@pytest.mark.parametrize("name", ["tiny_gpt.json", "tiny_gpt.safetensors"])
@pytest.mark.parametrize("keep", [0, 20, -20])
def test_a_cut_model_names_its_folder(finished, tmp_path, capsys, name, keep):
    import shutil

    shutil.copytree(finished / "model", tmp_path / "m")
    file = tmp_path / "m" / name
    file.write_bytes(file.read_bytes()[:keep])
    assert main(["sample", "--model", str(tmp_path / "m"), "--prompt", "List two metals."]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path / 'm'} is damaged: ")
    assert error.count("\n") == 1


def test_a_full_disk_is_one_sentence(preferences, tmp_path):
    """A limit on the size of files is the full disk that a test can have."""
    command = f"ulimit -f 40; exec {sys.executable} -m dpo_lib train --data {preferences} "
    command += f"--out {tmp_path / 'run'} {' '.join(OPTIONS)}"
    run = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert run.returncode == 1
    assert "Traceback" not in run.stderr
    assert run.stderr.splitlines()[-1].startswith("error: ")
    assert "goes on from the last checkpoint" in run.stderr or "is the disk full?" in run.stderr


def test_numbers_go_to_a_tracker(preferences, tmp_path, monkeypatch, capsys):
    from accelerate import tracking

    seen = []

    class Own(tracking.GeneralTracker):
        name = "tensorboard"
        requires_logging_directory = True
        tracker = None

        def __init__(self, run_name, logging_dir):
            super().__init__()
            seen.append(logging_dir)

        def store_init_configuration(self, values):
            seen.append(values["steps"])

        def log(self, values, step=None, **rest):
            seen.append((step, sorted(values)[0]))

        def finish(self):
            seen.append("end")

    assert train(preferences, tmp_path / "run", "--log-with", "tensorboard") == 2
    assert "needs the Python package tensorboard" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "tensorboard", Own)
    options = ["--steps", "2", "--eval-every", "1", "--log-with", "tensorboard"]
    assert train(preferences, tmp_path / "run", *options) == 0
    assert seen == [
        *(str(tmp_path / "run" / "logs"), 2),
        *((0, "held_out_accuracy"), (0, "chosen_logp"), (1, "held_out_accuracy")),
        *((1, "chosen_logp"), (2, "held_out_accuracy"), "end"),
    ]


def test_control_c_within_a_destructor_is_not_lost(preferences, tmp_path, monkeypatch, capsys):
    from dpo_lib.cli import train as command

    class Dying:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    def read(settings):
        Dying()
        time.sleep(5)

    monkeypatch.setattr(command, "_read", read)
    assert train(preferences, tmp_path / "run") == 130
    assert capsys.readouterr().err.startswith("interrupted: ")
