"""Files that are whole at any moment: the old one or the new one, never half of it."""

from __future__ import annotations

import errno
import glob
import itertools
import os
import platform
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

_writers = itertools.count()


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of ``path`` once the block has ended without an error.

    It is written beside it, reaches the disk, and is renamed. Its name holds this machine and
    process, and a number of its own, so that several processes and threads can write the same
    file: the last one to end stays. What killed processes left behind is removed with the next
    write.

    Parameters
    ----------
    path : Path
        In a folder that exists. An old file stays as it is if the block fails, and passes its
        permissions on if not.

    Yields
    ------
    BinaryIO
        The new file, open for writing.
    """
    if path.exists() and not path.is_file():  # renaming would put a file in a device's place
        raise OSError(errno.EINVAL, "not a plain file, so it is not replaced", str(path))
    _remove_left_over(path)
    writer = f"{platform.node()}-{os.getpid()}.{next(_writers)}"
    partial = path.with_name(f"{path.name}.{writer}.partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def load_tensors(path: Path, *, checked: bool = True) -> Any:
    """What ``torch.save`` wrote, on the CPU; nothing in the file is run.

    Parameters
    ----------
    path : Path
        The file.
    checked : bool
        Compare every byte with the sums in the file: ``torch.load`` takes changed numbers as they
        are. Without, tensors are read when they are asked for.

    Raises
    ------
    ValueError
        If the file is not what was written, naming it.
    OSError
        If it cannot be read.
    """
    import torch

    try:
        if checked:
            with zipfile.ZipFile(path) as parts:
                if (part := parts.testzip()) is not None:
                    raise zipfile.BadZipFile(part)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=not checked)
    except Exception as error:  # a damaged file brings out any of Python's errors
        if isinstance(error, OSError) and error.filename is not None:
            raise
        raise ValueError(f"{path} is empty, cut off or damaged") from error


@contextmanager
def one_at_a_time(lock: Path, doing: str) -> Iterator[None]:
    """Let one process at a time do something; ``lock`` is a file in a folder that exists.

    Raises
    ------
    ValueError
        If another process is ``doing`` it, which completes the sentence.
    """
    from filelock import FileLock, Timeout  # comes with torch

    held = FileLock(lock, timeout=0)
    try:
        held.acquire()
    except Timeout as error:
        raise ValueError(f"another process is {doing}") from error
    try:
        yield
    finally:
        held.release()


@contextmanager
def writing_alone(out: Path, doing: str) -> Iterator[None]:
    """Let one process at a time write ``out``, a file or folder; its folder is made.

    Raises
    ------
    ValueError
        If another process is ``doing`` it, which completes the sentence.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    lock = out.with_name(f".{out.name}.lock")
    with one_at_a_time(lock, doing):
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _remove_left_over(path: Path) -> None:
    """Remove the partial files of ``path`` whose processes, of this machine, are gone."""
    ours = f"{path.name}.{platform.node()}-"
    for partial in path.parent.glob(f"{glob.escape(ours)}*.partial"):
        process = partial.name.removeprefix(ours).removesuffix(".partial").rpartition(".")[0]
        if process.isdecimal() and not _is_running(int(process)):
            partial.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    """Whether there is a process of this number; where one cannot ask, there may be."""
    if os.name != "posix":  # elsewhere the question itself would end the process
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # there is one, of another user
        pass
    return True
