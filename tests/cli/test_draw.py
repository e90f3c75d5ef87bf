"""``draw``: the same answers however it was interrupted, and one by one as in batches."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from filelock import FileLock

from dpo_lib.cli import draw as command
from dpo_lib.cli import main, threads
from dpo_lib.cli.answers import answer_seed
from dpo_lib.cli.data import tokenizer_options
from dpo_lib.cli.models import open_model
from dpo_lib.cli.progress import Progress, Stage
from dpo_lib.cli.records import write_json
from dpo_lib.cli.sample import read_prompts
from dpo_lib.models import Reply, respond
from tests.models.hf import make_folder

ROOT = Path(__file__).resolve().parents[2]
PROMPTS = ["1+1", "What is the capital of France?", "Hi.", "Tell me of a long river.", "é", "1+1"]
EACH, NEW = 3, 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture(scope="module")
def opened(folder):
    return open_model(str(folder))


@pytest.fixture(autouse=True)
def small(monkeypatch, opened):
    """Two prompts at a time, of a model that is loaded once."""
    monkeypatch.setattr(command, "TOGETHER", 2 * EACH)
    monkeypatch.setattr(command, "open_model", lambda *_: opened)


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("\n".join(PROMPTS) + "\n", encoding="utf-8")
    return path


def draw(folder, prompts, out, *more):
    words = ["draw", "--model", str(folder), "--prompts", str(prompts), "--out", str(out)]
    return main([*words, "--per-prompt", str(EACH), "--max-new-tokens", str(NEW), *more])


@pytest.fixture
def whole(folder, prompts, tmp_path):
    assert draw(folder, prompts, tmp_path / "whole.jsonl") == 0
    return tmp_path / "whole.jsonl"


@pytest.fixture
def stages(monkeypatch):
    """What is shown, with what is counted."""
    shown, original = [], Progress.stage

    def stage(progress, name, total=None, unit="", resumed=0):
        shown.append((name, total, resumed))
        return original(progress, name, total, unit, resumed)

    monkeypatch.setattr(Progress, "stage", stage)
    return shown


def rows_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_row_is_a_prompt_with_its_answers(
    folder, prompts, opened, stages, tmp_path, monkeypatch, capsys
):
    out, given = tmp_path / "out.jsonl", []
    monkeypatch.setattr(command, "open_model", lambda *how: given.append(how) or opened)
    assert draw(folder, prompts, out, "--plain", "--seed", "4") == 0
    rows, options = rows_of(out), tokenizer_options({"plain": True})
    assert given == [(str(folder), options)]
    assert stages[1:] == [(f"loading {folder}", None, 0), ("answers", 6 * EACH, 0)]
    assert json.loads(command.settings_beside(out).read_text()) == {
        "model": str(folder), "model_sha256": command._digest(folder), **options,
        "per_prompt": EACH, "temperature": 1.0, "max_new_tokens": NEW, "seed": 4,
        "together": 2 * EACH, "cut": NEW, "threads": torch.get_num_threads(),
    }  # fmt: skip
    answers = [a for row in rows for a in row["answers"]]
    mean, ended = (sum(a[name] for a in answers) / 18 for name in ("tokens", "ended"))
    said = f"{out}: 18 answers, {mean:.1f} tokens each, {ended:.0%} end\n"
    assert capsys.readouterr().out == said
    assert [row["prompt"] for row in rows] == PROMPTS
    assert {len(row["answers"]) for row in rows} == {EACH}
    for answer in (a for row in rows for a in row["answers"]):
        assert list(answer) == ["text", "ended", "tokens"]
        assert 1 <= answer["tokens"] <= NEW
        assert answer["ended"] or answer["tokens"] == NEW
    texts = Counter(a["text"] for row in rows for a in row["answers"])
    assert max(texts.values()) == 1  # of the prompt that is there twice, too


def test_batches_hold_what_is_drawn_one_by_one(whole, opened):
    for i, row in enumerate(rows_of(whole)):
        for j, drawn in enumerate(row["answers"]):
            seed = answer_seed(0, i, j)
            (alone,) = respond(opened.model, opened.tokenizer, [row["prompt"]], NEW, seed=seed)
            assert command.as_answer(alone) == drawn


def test_a_prompt_is_read_once_for_all_its_answers(opened):
    seen = []
    hook = opened.model.register_forward_pre_hook(
        lambda _, given, named: seen.append((given[0] if given else named["input_ids"]).shape),
        with_kwargs=True,
    )
    respond(opened.model, opened.tokenizer, ["Hi.", "A longer one.", "Hi.", "Hi."], 3, seed=0)
    hook.remove()
    assert seen[0][0] == 2
    assert seen[1] == (4, 1)


@pytest.mark.parametrize("at", [0.0, 0.1, 0.4, 0.5, 0.75, 0.999])
def test_a_file_that_was_cut_ends_with_the_same_bits(whole, folder, prompts, tmp_path, at):
    data, out = whole.read_bytes(), tmp_path / "cut.jsonl"
    out.write_bytes(data[: int(at * len(data))])
    command.settings_beside(out).write_bytes(command.settings_beside(whole).read_bytes())
    assert draw(folder, prompts, out) == 0
    assert out.read_bytes() == data


def test_what_is_whole_is_not_drawn_again(whole, folder, prompts, monkeypatch, capsys):
    monkeypatch.setattr(command, "open_model", pytest.fail)
    capsys.readouterr()
    assert draw(folder, prompts, whole) == 0
    said = f"{whole} is whole already (6 prompts); --restart draws again\n"
    assert capsys.readouterr().err == said


def test_only_what_is_missing_is_drawn(whole, folder, prompts, tmp_path, monkeypatch, stages):
    lines, out = whole.read_bytes().splitlines(keepends=True), tmp_path / "begun.jsonl"
    out.write_bytes(b"".join(lines[:3]))
    command.settings_beside(out).write_bytes(command.settings_beside(whole).read_bytes())
    asked, original = [], command.answer
    monkeypatch.setattr(
        command, "answer", lambda *given: (asked.append(len(given[1])), original(*given))[1]
    )
    assert draw(folder, prompts, out) == 0
    assert asked == [2 * EACH] * 2  # the pair that the third prompt is in, and the last one
    assert stages[-1] == ("answers", 6 * EACH, 3 * EACH)
    assert out.read_bytes() == whole.read_bytes()


def test_more_prompts_are_appended(whole, folder, prompts):
    before = whole.read_bytes()
    prompts.write_text("\n".join([*PROMPTS, "And this?"]), encoding="utf-8")
    assert draw(folder, prompts, whole) == 0
    assert whole.read_bytes().startswith(before)
    assert rows_of(whole)[-1]["prompt"] == "And this?"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seed", "1"], "drawn otherwise (seed was 0, is 1)"),
        (
            ["--seed", "1", "--temperature", "0.5"],
            "(temperature was 1.0, is 0.5; seed was 0, is 1)",
        ),
        (["--per-prompt", "2"], "per_prompt was 3, is 2"),
        (["--max-new-tokens", "9"], "max_new_tokens was 10, is 9"),
        (["--plain"], "chat was None, is False"),
        (["--system", "Be brief."], "line 1, is not of the prompt"),
        (["--temperature", "-1"], "must be 0 or positive and finite, got -1.0"),
        (["--temperature", "nan"], "must be 0 or positive and finite, got nan"),
    ],
)
def test_other_settings_are_refused_in_one_sentence(whole, folder, prompts, capsys, words, message):
    before = whole.read_bytes()
    capsys.readouterr()
    assert draw(folder, prompts, whole, *words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    if " was " in message:
        assert error.startswith(f"error: {whole} was drawn otherwise (")
        assert error.endswith("); use another --out, or --restart to drop it\n")
    assert whole.read_bytes() == before


def test_another_model_of_the_same_name_is_refused(whole, folder, prompts, tmp_path, capsys):
    config = folder / "generation_config.json"
    before = config.read_bytes()
    config.write_bytes(before + b"\n")
    try:
        assert draw(folder, prompts, whole) == 2
    finally:
        config.write_bytes(before)
    assert "model_sha256 was" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_model_is_known_by_each_of_its_files(folder, tmp_path, name):
    run = tmp_path / "run"
    shutil.copytree(folder, run / "model")
    before = command._digest(run / "model")
    (run / "run.json").write_text("{}")
    assert before == command._digest(run) == command._digest(folder)
    file = run / "model" / name
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert command._digest(run) != before
    assert command._digest(tmp_path / "none") is None


def test_other_prompts_and_other_files_are_refused(whole, folder, prompts, capsys):
    prompts.write_text("\n".join(["0", *PROMPTS[1:]]), encoding="utf-8")
    assert draw(folder, prompts, whole) == 2
    said = f"error: {whole}, line 1, is not of the prompt '0'\n"
    assert capsys.readouterr().err.endswith(said)
    prompts.write_text("1+1\n", encoding="utf-8")
    assert draw(folder, prompts, whole) == 2
    assert capsys.readouterr().err == f"error: {whole} has 6 prompts, now there are 1\n"
    command.settings_beside(whole).unlink()
    assert draw(folder, prompts, whole) == 2
    assert capsys.readouterr().err == (
        f"error: {whole} is there, and {whole.name}.settings, which tells how it was drawn, is "
        "not; use another --out, or --restart to drop it\n"
    )
    for seed in (4, 5):  # with no settings beside it, and with those of other answers
        assert draw(folder, prompts, whole, "--restart", "--seed", str(seed)) == 0
        assert len(rows_of(whole)) == 1
        assert json.loads(command.settings_beside(whole).read_text())["seed"] == seed


def test_ctrl_c_keeps_what_is_drawn(folder, prompts, whole, tmp_path, monkeypatch, capsys):
    out, original, calls = tmp_path / "stopped.jsonl", command.answer, []

    def stop(*given):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*given)

    monkeypatch.setattr(command, "answer", stop)
    assert draw(folder, prompts, out) == 130
    assert "interrupted: the same command goes on where it stopped" in capsys.readouterr().err
    assert len(rows_of(out)) == 2
    assert draw(folder, prompts, out) == 0
    assert out.read_bytes() == whole.read_bytes()
    left = {path.name for path in tmp_path.iterdir() if path.name.startswith((".", "stopped"))}
    assert left == {"stopped.jsonl", "stopped.jsonl.settings"}


def test_a_system_text_stands_in_the_rows_and_is_that_of_the_run_unless_typed(prompts, tmp_path):
    prompts.write_text("1+1\n")
    settings = {"system": "Be long.", "answer_prefix": "So:"}
    known = {"settings": settings, "machine": {}, "finished": True, "held_out": 0}
    write_json(tmp_path / "run.json", known)
    for more, system in (([], "Be long."), (["--system", "Be brief."], "Be brief.")):
        out = tmp_path / f"{system}jsonl"
        assert draw(tmp_path, prompts, out, "--temperature", "0", *more) == 0
        (said,) = read_prompts(out)
        assert said.messages == (
            {"role": "system", "content": system},
            {"role": "user", "content": "1+1"},
        )
        assert json.loads(command.settings_beside(out).read_text())["answer_prefix"] == "So:"


def test_the_room_of_the_model_is_told(folder, prompts, opened, tmp_path, capsys):
    out = tmp_path / "long.jsonl"
    assert draw(folder, prompts, out, "--max-new-tokens", "500") == 0
    error = capsys.readouterr().err
    room = max(a["tokens"] for row in rows_of(out) for a in row["answers"])
    longest = 96 - room
    assert (
        f"note   answers are cut at {room} tokens: the model reads 96, the longest prompt has "
        f"{longest}\n"
    ) in error
    assert json.loads(command.settings_beside(out).read_text())["cut"] == room
    just = SimpleNamespace(max_new_tokens=room, progress=Progress(False))
    assert command._cut(just, opened, PROMPTS) == room
    assert capsys.readouterr().err == ""
    longer = "\n".join([*PROMPTS, "A longer one than all that are there."])
    prompts.write_text(longer, encoding="utf-8")
    assert draw(folder, prompts, out, "--max-new-tokens", "500") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: {out} was drawn with answers cut at {room}, not ")
    assert int(error.split()[-1]) < room


def test_killed_and_started_again_it_writes_the_same_file(folder, tmp_path):
    """In processes of their own, with batches as they are."""
    prompts, outs = tmp_path / "many.txt", [tmp_path / "one.jsonl", tmp_path / "two.jsonl"]
    prompts.write_text("\n".join(f"{i}+{i * i}=" for i in range(90)), encoding="utf-8")

    def start(out):
        words = ["draw", "--model", str(folder), "--prompts", str(prompts), "--out", str(out)]
        words += ["--per-prompt", "5", "--max-new-tokens", "60"]
        return subprocess.Popen(
            [sys.executable, "-m", "dpo_lib", *words],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
        )

    process = start(outs[0])
    while process.poll() is None and not (outs[0].exists() and outs[0].stat().st_size):
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    kept = outs[0].read_bytes()
    assert 0 < kept.count(b"\n") < 90
    for out in outs:
        assert start(out).wait() == 0
    assert outs[0].read_bytes() == outs[1].read_bytes()
    assert outs[0].read_bytes().startswith(kept[: kept.rfind(b"\n") + 1])


def test_a_file_is_gone_on_with_by_as_many_threads(
    whole, folder, prompts, tmp_path, monkeypatch, capsys
):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    out, taken = tmp_path / "out.jsonl", []
    monkeypatch.setattr(command, "_draw", lambda *_: taken.append(torch.get_num_threads()))
    monkeypatch.setattr(command, "_summary", lambda _: "")
    assert draw(folder, prompts, out, "--threads", "2", "--quiet") == 0
    out.write_bytes(whole.read_bytes().splitlines(keepends=True)[0])
    assert draw(folder, prompts, out) == 0
    assert draw(folder, prompts, out, "--threads", "1") == 0
    assert taken == [2, 2, 1]
    monkeypatch.setattr(threads, "_free_cores", lambda: 0)
    assert draw(folder, prompts, tmp_path / "new.jsonl") == 0
    assert "other programs keep the processor busy" in capsys.readouterr().err


def test_what_is_drawn_is_counted_on_the_way(opened, monkeypatch):
    stage, seen = Stage("answers", 18, ""), []
    for i, _ in enumerate(command.in_groups(opened, PROMPTS, EACH, NEW, 1.0, 0, stage)):
        seen.append(stage.done)
        assert stage.done == (i + 1) * EACH
    assert len(seen) == len(PROMPTS)
    during = []
    hook = opened.model.register_forward_hook(lambda *_: during.append(str(stage).split()[1]))
    stage = Stage("answers", 18, "", resumed=6)
    for _ in command.in_groups(opened, PROMPTS, EACH, NEW, 1.0, 0, stage, first=2):
        pass
    assert {"6/18,", "8/18,", "12/18,", "17/18,"} <= {*during}
    assert stage.done == 18
    during.clear()
    monkeypatch.setattr(command, "TOGETHER", 2)  # fewer than the answers of a prompt
    stage = Stage("answers", 3, "")
    assert len([*command.in_groups(opened, PROMPTS[:1], 3, 8, 1.0, 0, stage)]) == 1
    hook.remove()
    assert during == [f"{min(2 * calls // 8, 3)}/3," for calls in range(len(during))]
    assert len(during) > 8


def test_groups_are_the_same_wherever_it_begins_and_each_answer_has_its_seed(monkeypatch):
    asked = []

    def answer(opened, prompts, *how):
        asked.append((prompts, how))
        return [Reply(prompt, str(i), True, (1,)) for i, prompt in enumerate(prompts)]

    monkeypatch.setattr(command, "answer", answer)
    monkeypatch.setattr(command, "TOGETHER", 8)
    opened, letters = SimpleNamespace(model=torch.nn.Linear(1, 1)), "abcdefg"
    for each, group in ((3, 2), (4, 2), (5, 1), (9, 1)):
        for first in range(len(letters)):
            asked.clear()
            stage = Stage("answers", None, "", resumed=5)
            drawn = command.in_groups(opened, letters, each, 7, 0.5, 3, stage, first)
            for i, (prompt, replies) in enumerate(drawn, start=first):
                assert (prompt, stage.done) == (letters[i], 5 + (i - first + 1) * each)
                assert [(r.prompt, int(r.text)) for r in replies] == [
                    (prompt, i % group * each + j) for j in range(each)
                ]
            assert stage.done == 5 + (len(letters) - first) * each
            places = range(first // group * group, len(letters))
            found = [prompt for prompts, _ in asked for prompt in prompts]
            assert found == [letters[i] for i in places for _ in range(each)]
            assert {len(prompts) for prompts, _ in asked[:-1]} <= {group * each}
            assert {how[:2] + how[3:] for _, how in asked} == {(7, 0.5, 8)}
            seeds = [answer_seed(3, i, j) for i in places for j in range(each)]
            assert [seed for _, how in asked for seed in how[2]] == seeds


def test_two_processes_do_not_draw_into_one_file(whole, folder, prompts, capsys):
    with FileLock(whole.with_name(f".{whole.name}.lock")):
        assert draw(folder, prompts, whole) == 2
    assert f"another process is drawing into {whole}" in capsys.readouterr().err


def test_seeds_are_apart():
    seeds = [answer_seed(*place) for place in [(0, 1, 11), (0, 11, 1), (1, 0, 11), (0, 1, 12)]]
    assert len(set(seeds)) == 4
    assert all(0 <= seed < 2**63 for seed in seeds)
    torch.Generator().manual_seed(seeds[0])
