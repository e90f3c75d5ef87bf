"""Refresh the third-party browser files that the book carries: `python tools/vendor.py`.

Needs Node.js and npm, and only when a version below or `tools/mathjax.js` changes: the results are
committed. `manifest.json`, written beside them, records where each file comes from and its hash;
`tests/book/test_vendor.py` compares. MicroPython's package has no licence file: the one beside its
files is copied from its repository, and stays.
"""

import hashlib
import json
import shutil
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "book" / "_static" / "vendor" / "mathjax"
ENTRY = ROOT / "tools" / "mathjax.js"
MATHJAX = "3.2.2"
ESBUILD = "0.28.2"
PACKAGE_INTEGRITY = (
    "sha512-+LfG9Fik+OuI8SLwsiR02IVdjcnRCy5MufYLi0C3"
    "TdMT56L/pjB0alMVGgoWJF8pN9Rc7FESycZB9BMNWIid5w=="
)
MICROPYTHON_TARGET = ROOT / "dpo_lib" / "widgets" / "js" / "vendor" / "micropython"
MICROPYTHON_PACKAGE = "@micropython/micropython-webassembly-pyscript"
MICROPYTHON = "1.27.0"
MICROPYTHON_INTEGRITY = (
    "sha512-DnXx4EqxgkeaFESrS3uKrL7mLMk4mRTd0mMzaOd3HUSi"
    "ZUOAE7t11uLnjf3ftF87N2xm4knHnWEKcVK4IYIUDA=="
)
BANNER = f"/* MathJax {MATHJAX}, the parts listed in tools/mathjax.js. Apache-2.0, see LICENSE. */"


def sha256(path: Path) -> str:
    """Return the hash of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def install(work: Path, *packages: str) -> dict[str, str]:
    """Install packages of npm into a folder and return their hashes by name."""
    (work / "package.json").write_text("{}")
    command = ["npm", "install", "--save-exact", "--no-audit", "--no-fund"]
    subprocess.run([*command, *packages], cwd=work, check=True)
    found = json.loads((work / "package-lock.json").read_text())["packages"]
    return {
        name.removeprefix("node_modules/"): entry.get("integrity") for name, entry in found.items()
    }


def check(name: str, version: str, found: str, recorded: str) -> None:
    """Stop if a package is not the one that was looked at."""
    if found != recorded:
        raise SystemExit(f"{name} {version} has integrity {found}, not the recorded one")


def write_manifest(target: Path, **entries: object) -> None:
    """Record what the folder holds."""
    files = sorted(p for p in target.rglob("*") if p.is_file() and p.name != "manifest.json")
    hashes = {path.relative_to(target).as_posix(): sha256(path) for path in files}
    manifest = json.dumps({**entries, "files": hashes}, indent=2)
    (target / "manifest.json").write_text(manifest + "\n")
    print(f"{target.relative_to(ROOT)}: {len(files)} files")


def vendor_micropython() -> None:
    """Fetch MicroPython, which runs the reader's Python in the page."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        found = install(work, f"{MICROPYTHON_PACKAGE}@{MICROPYTHON}")[MICROPYTHON_PACKAGE]
        check(MICROPYTHON_PACKAGE, MICROPYTHON, found, MICROPYTHON_INTEGRITY)
        for name in ("micropython.mjs", "micropython.wasm"):
            shutil.copy(work / "node_modules" / MICROPYTHON_PACKAGE / name, MICROPYTHON_TARGET)
    write_manifest(
        MICROPYTHON_TARGET,
        name=MICROPYTHON_PACKAGE,
        version=MICROPYTHON,
        licence="MIT",
        integrity=MICROPYTHON_INTEGRITY,
    )


def vendor_mathjax() -> None:
    """Fetch the packages, bundle, copy and record."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        packages = [f"mathjax-full@{MATHJAX}", f"esbuild@{ESBUILD}"]
        found = install(work, *packages)["mathjax-full"]
        check("mathjax-full", MATHJAX, found, PACKAGE_INTEGRITY)

        shutil.rmtree(TARGET, ignore_errors=True)
        TARGET.mkdir(parents=True)
        entry = shutil.copy(ENTRY, work / "mathjax.js")
        subprocess.run(
            [
                work / "node_modules" / ".bin" / "esbuild",
                entry,
                "--bundle",
                "--minify",
                "--target=es2020",
                # MathJax's TypeScript means class fields the old way.
                '--tsconfig-raw={"compilerOptions":{"useDefineForClassFields":false}}',
                "--legal-comments=none",
                f"--banner:js={BANNER}",
                f"--outfile={TARGET / 'mathjax.js'}",
            ],
            cwd=work,
            check=True,
        )
        package = work / "node_modules" / "mathjax-full"
        shutil.copytree(package / "es5/output/chtml/fonts/woff-v2", TARGET / "woff-v2")
        shutil.copy(package / "LICENSE", TARGET / "LICENSE")

    write_manifest(
        TARGET,
        name="mathjax-full",
        version=MATHJAX,
        licence="Apache-2.0",
        integrity=PACKAGE_INTEGRITY,
        bundler=f"esbuild {ESBUILD}",
        entry={"path": ENTRY.relative_to(ROOT).as_posix(), "sha256": sha256(ENTRY)},
    )


if __name__ == "__main__":
    vendor_mathjax()
    vendor_micropython()
