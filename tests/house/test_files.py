"""Files that take another's place: whole or not at all, with nothing left behind."""

import os
import platform
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dpo_lib._files import replacing

ROOT = Path(__file__).resolve().parents[2]
NODE = platform.node()


def write(path, data):
    with replacing(path) as file:
        file.write(data)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def gone():
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_the_new_file_stands_where_the_old_one_stood(tmp_path):
    path = tmp_path / "a[1].txt"
    write(path, b"old")
    with replacing(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["a[1].txt"]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
@pytest.mark.parametrize("old", [None, b"old"])
def test_a_failure_while_writing_leaves_the_old_file(tmp_path, error, old):
    path = tmp_path / "a.txt"
    if old:
        path.write_bytes(old)

    def pieces():
        yield b"half of "
        raise error

    with pytest.raises(type(error)), replacing(path) as file:
        file.writelines(pieces())
    assert names(tmp_path) == (["a.txt"] if old else [])
    assert not old or path.read_bytes() == old


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failure_at_the_end_leaves_the_old_file(tmp_path, monkeypatch, step):
    path = tmp_path / "a.txt"
    write(path, b"old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(*((os, "fsync") if step == "fsync" else (Path, "replace")), fail)
    with pytest.raises(OSError, match="disk full"):
        write(path, b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.txt"]


def test_what_is_renamed_has_reached_the_disk(tmp_path, monkeypatch):
    events = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda f: (events.append(os.fstat(f).st_size), fsync(f)))
    monkeypatch.setattr(Path, "replace", lambda a, b: (events.append("renamed"), replace(a, b)))
    write(tmp_path / "a.txt", b"new")
    assert events == [3, "renamed"]


def test_two_threads_write_one_file_and_it_is_whole(tmp_path):
    path = tmp_path / "a.txt"
    both_open = threading.Barrier(2, timeout=30)

    def write_slowly(data):
        with replacing(path) as file:
            file.write(data[:1])
            file.flush()
            both_open.wait()
            file.write(data[1:])

    texts = [b"one", b"second"]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write_slowly, texts))
    assert path.read_bytes() in texts
    assert names(tmp_path) == ["a.txt"]


def test_of_two_writers_one_that_fails_takes_nothing_from_the_other(tmp_path):
    path = tmp_path / "a.txt"
    with replacing(path) as file:
        file.write(b"whole")
        with pytest.raises(TypeError), replacing(path) as other:
            other.writelines([b"half of ", None])
        assert not path.exists()
    assert path.read_bytes() == b"whole"
    assert names(tmp_path) == ["a.txt"]


def test_a_killed_process_leaves_the_old_file_and_the_next_write_clears_up(tmp_path):
    path = tmp_path / "a.txt"
    write(path, b"old")
    code = (
        "import os, pathlib, sys\n"
        "from dpo_lib._files import replacing\n"
        "with replacing(pathlib.Path(sys.argv[1])) as file:\n"
        "    file.write(b'half of ')\n"
        "    file.flush()\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    killed = subprocess.Popen([sys.executable, "-c", code, str(path)], cwd=ROOT)
    assert killed.wait() == -9
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.txt", f"a.txt.{NODE}-{killed.pid}.0.partial"]
    write(path, b"new")
    assert names(tmp_path) == ["a.txt"]


def test_only_what_dead_processes_of_this_machine_left_of_this_file_is_removed(tmp_path, gone):
    path = tmp_path / "a[1].txt"
    kept = {
        f"a[1].txt.{NODE}-1.0.partial",  # runs, and belongs to another user or to this one
        f"a[1].txt.{NODE}-{os.getppid()}.0.partial",
        f"a[1].txt.another-{gone}.0.partial",  # of another machine
        f"a[1].txt.{NODE}-{gone}-1.0.partial",  # of another, whose name begins like this one's
        f"a1.txt.{NODE}-{gone}.0.partial",  # of another file
        f"a[1].txt.{NODE}-copy.partial",
    }
    left = [
        f"a[1].txt.{NODE}-{number}.partial" for number in (f"{gone}.0", f"{gone}.7", f"{2**70}.0")
    ]
    for name in [*kept, *left]:
        (tmp_path / name).touch()
    write(path, b"new")
    assert names(tmp_path) == sorted([*kept, "a[1].txt"])


def test_two_processes_can_write_one_file(tmp_path):
    path = tmp_path / "a.txt"
    code = (
        "import pathlib, sys\n"
        "from dpo_lib._files import replacing\n"
        "for _ in range(200):\n"
        "    with replacing(pathlib.Path(sys.argv[1])) as file:\n"
        "        file.write(sys.argv[2].encode() * 1000)\n"
    )
    runs = [
        subprocess.Popen([sys.executable, "-c", code, str(path), letter], cwd=ROOT)
        for letter in "ab"
    ]
    while any(run.poll() is None for run in runs):
        if path.exists():
            assert path.read_bytes() in (b"a" * 1000, b"b" * 1000)
    assert [run.returncode for run in runs] == [0, 0]
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444])
def test_permissions_are_those_of_the_old_file(tmp_path, mode):
    path = tmp_path / "a.txt"
    write(path, b"old")
    path.chmod(mode)
    write(path, b"new")
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_new_file_has_the_permissions_of_any_new_file(tmp_path):
    write(tmp_path / "a.txt", b"new")
    (tmp_path / "b.txt").touch()
    assert (tmp_path / "a.txt").stat().st_mode == (tmp_path / "b.txt").stat().st_mode


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        write(tmp_path / "nowhere" / "a.txt", b"new")


def test_a_pipe_or_a_device_is_not_replaced(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(OSError, match="not a plain file"), replacing(path):
        pass
    assert path.is_fifo()
    assert list(tmp_path.iterdir()) == [path]
