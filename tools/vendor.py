"""Refresh the third-party browser files that the book carries: `python tools/vendor.py`.

Needs Node.js and npm, and only when a version below or `tools/mathjax.js` changes: the results are
committed. `manifest.json`, written beside them, records where each file comes from and its hash;
`tests/book/test_vendor.py` compares.
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
BANNER = f"/* MathJax {MATHJAX}, the parts listed in tools/mathjax.js. Apache-2.0, see LICENSE. */"


def sha256(path: Path) -> str:
    """Return the hash of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> None:
    """Fetch the packages, bundle, copy and record."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "package.json").write_text("{}")
        command = ["npm", "install", "--save-exact", "--no-audit", "--no-fund"]
        packages = [f"mathjax-full@{MATHJAX}", f"esbuild@{ESBUILD}"]
        subprocess.run([*command, *packages], cwd=work, check=True)
        lock = json.loads((work / "package-lock.json").read_text())
        found = lock["packages"]["node_modules/mathjax-full"]["integrity"]
        if found != PACKAGE_INTEGRITY:
            raise SystemExit(f"mathjax-full {MATHJAX} has integrity {found}, not the recorded one")

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

    files = sorted(path for path in TARGET.rglob("*") if path.is_file())
    manifest = {
        "name": "mathjax-full",
        "version": MATHJAX,
        "licence": "Apache-2.0",
        "integrity": PACKAGE_INTEGRITY,
        "bundler": f"esbuild {ESBUILD}",
        "entry": {"path": ENTRY.relative_to(ROOT).as_posix(), "sha256": sha256(ENTRY)},
        "files": {path.relative_to(TARGET).as_posix(): sha256(path) for path in files},
    }
    (TARGET / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    print(f"{TARGET.relative_to(ROOT)}: {len(files)} files")


if __name__ == "__main__":
    main()
