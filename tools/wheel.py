"""Build the wheel of dpo_lib, and show that it works without the project around it.

python tools/wheel.py           build it into dist/, and try it out
python tools/wheel.py --only    build it

To try it out, it is installed with its extras into a new environment in a folder elsewhere, where
no compiler can be found. There the README's example prints what stands beside it, the demo runs,
and every chapter and appendix, alone in a folder, prints and draws what is stored in it, to the
byte. SmolLM2 is taken from this machine's cache, where `tools/fetch_model.py` brings it.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import nbformat

from tools import fetch_model, notebooks

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"
LIMIT = 1_350_000  # bytes
DATE = "1577836800"  # files in the wheel are of 2020, so that equal sources make equal wheels
EXTRAS = "figures,widgets,models"
RUNNERS = ("ipykernel", "nbclient", "pytest")  # what a chapter needs; appendix B runs tests


def build(folder: Path) -> Path:
    """Write the wheel into the folder and return its path.

    It is made from a copy: setuptools leaves a folder behind from which files that are long
    deleted would come again.
    """
    with tempfile.TemporaryDirectory() as home:
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, home)
        unwanted = shutil.ignore_patterns("__pycache__", ".*")
        shutil.copytree(ROOT / "dpo_lib", Path(home, "dpo_lib"), ignore=unwanted)
        made = Path(home, "made")
        options = ["--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", made, home]
        environment = {**os.environ, "SOURCE_DATE_EPOCH": DATE}
        command = [sys.executable, "-m", "pip", "wheel", *options]
        subprocess.run(command, env=environment, check=True)
        (wheel,) = made.iterdir()
        folder.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copy(wheel, folder))


def example() -> str:
    """Return the README's example."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return code


def differences(code: str, printed: list[str]) -> list[tuple[str, str]]:
    """Return the printed lines that are not what the comments of the printing lines begin with."""
    comments = [
        line.partition("  # ")[2] for line in code.splitlines() if line.startswith("print(")
    ]
    return [
        (line, comment)
        for line, comment in zip(printed, comments, strict=True)
        if not f"{comment}  ".startswith(f"{line}  ")
    ]


def try_out(wheel: Path, home: Path) -> None:
    """Install the wheel into a new environment in ``home`` and use it there.

    Raises
    ------
    SystemExit
        If something in it does not do what it does in the project.
    """
    python = home / "environment" / "bin" / "python"
    venv.create(python.parents[1], with_pip=True)
    install = [python, "-m", "pip", "install", "--quiet", "-c", ROOT / "requirements.txt"]
    subprocess.run([*install, f"{wheel}[{EXTRAS}]", *RUNNERS], check=True)

    folder = home / "elsewhere"
    folder.mkdir()
    alone = {**dict.fromkeys(notebooks.THREADS, "1"), "JUPYTER_PLATFORM_DIRS": "1"}
    alone |= {"PATH": str(python.parent), "HF_HUB_OFFLINE": "1"}  # neither compiler nor network
    alone |= {"DPO_LIB_CACHE": str(fetch_model.smollm2_folder().parent)}
    alone |= {"HOME": str(home), "LANG": "C.UTF-8"}  # and no settings or packages of the user

    def run(*command: str | Path) -> str:
        done = subprocess.run(command, cwd=folder, env=alone, capture_output=True, text=True)
        if done.returncode:
            shown = " ".join(map(str, command))
            raise SystemExit(f"error: {shown} failed\n{done.stdout}{done.stderr}")
        return done.stdout

    where = run(python, "-c", "import dpo_lib; print(dpo_lib.__file__)")
    if not Path(where).is_relative_to(python.parents[1]):
        raise SystemExit(f"error: the wheel is not what was imported, but {where}")
    code = example()
    if wrong := differences(code, run(python, "-c", code).splitlines()):
        raise SystemExit(f"error: the README's example printed {wrong}")
    print("the README's example prints what stands beside it")
    print("demo:", run(python, "-m", "dpo_lib", "demo").splitlines()[-1])
    for path in sorted([*ROOT.glob("notebooks/*.ipynb"), *ROOT.glob("book/appendices/*.ipynb")]):
        copy = Path(shutil.copy(path, folder))
        run(python.with_name("jupyter-execute"), "--inplace", copy)
        if notebooks.normalize(nbformat.read(copy, as_version=4)) != path.read_text("utf-8"):
            raise SystemExit(f"error: {path.name} prints something else than in the project")
        print(f"{path.name} runs as in the project", flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="store_true", help="do not try it out")
    options = parser.parse_args(arguments)
    wheel = build(DIST)
    size = wheel.stat().st_size
    print(f"{wheel}  {size / 1e6:.2f} MB", flush=True)
    if size > LIMIT:
        raise SystemExit(f"error: it has more than {LIMIT / 1e6:.2f} MB")
    if not options.only:
        with tempfile.TemporaryDirectory() as home:
            try_out(wheel, Path(home))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
