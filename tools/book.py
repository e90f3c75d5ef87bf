"""Build the book when its sources changed, pack it to take along, or serve it on this machine.

python tools/book.py build [--force]
python tools/book.py zip
python tools/book.py serve [--port 8000]
"""

import argparse
import fcntl
import fnmatch
import functools
import hashlib
import http.server
import io
import re
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "_build"
HTML = BUILD / "html"
DIGEST = BUILD / "book.sha256"
LOG = BUILD / "book.log"
ZIP = ROOT / "dist" / "dpo_book.zip"
ZIP_LIMIT = 25_000_000  # bytes
UNREAD = (  # what the theme and Sphinx put into the folder, and no page asks for
    *("*.map", "*.mo", "*.po", "*.inv", ".buildinfo"),
    *("_static/webpack-macros.html", "_static/sbt-webpack-macros.html"),
)
PROGRAM = """
import gc, sys
gc.disable()  # Sphinx keeps what it makes: looking for garbage took a quarter of the time
sys.modules["rfc3987_syntax"] = None  # jsonschema does without it; its import compiles a grammar
from jupyter_book.cli.main import main
main()
"""
SOURCES = (
    *("_config.yml", "_toc.yml", "pyproject.toml"),
    *("requirements.txt", "constraints.txt", "tools/book.py"),
)
SOURCE_FOLDERS = ("book", "dpo_lib", "notebooks")


def source_files() -> Iterator[Path]:
    """Every file that the built book depends on."""
    yield from (ROOT / name for name in SOURCES)
    for folder in SOURCE_FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            parts = path.relative_to(ROOT).parts
            hidden = any(part.startswith(".") or part == "__pycache__" for part in parts)
            if path.is_file() and not hidden:
                yield path


def source_digest() -> str:
    """Return one hash for the names and contents of all source files."""
    total = hashlib.sha256()
    for path in source_files():
        total.update(f"{path.relative_to(ROOT)}\0".encode())
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def build(force: bool = False) -> Path:
    """Build the book if it is not up to date, and return its first page.

    A lock lets several test processes ask at once: one builds, the others wait for it.
    """
    BUILD.mkdir(exist_ok=True)
    with (BUILD / "book.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        digest = source_digest()
        if force or not DIGEST.exists() or DIGEST.read_text() != digest:
            DIGEST.unlink(missing_ok=True)
            run_jupyter_book()
            DIGEST.write_text(digest)
    return HTML / "index.html"


def run_jupyter_book() -> None:
    """Run Jupyter Book with warnings as errors; show its output only if it fails."""
    print("building the book", file=sys.stderr, flush=True)
    started = time.perf_counter()
    shutil.rmtree(HTML, ignore_errors=True)
    shutil.rmtree(BUILD / "jupyter_execute", ignore_errors=True)
    options = ["--all", "-W", "-n", "--keep-going", "--path-output", str(ROOT), str(ROOT)]
    with LOG.open("wb") as log:
        result = subprocess.run(
            [sys.executable, "-c", PROGRAM, "build", *options],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    if result.returncode != 0:
        text = re.sub(r"\x1b\[[\d;]*m", "", LOG.read_text(errors="replace"))
        problems = [line for line in text.splitlines() if "WARNING" in line or "ERROR" in line]
        print("\n".join(problems or text.splitlines()[-40:]), file=sys.stderr)
        raise SystemExit(f"error: the book did not build; all output is in {LOG.relative_to(ROOT)}")
    print(f"built in {time.perf_counter() - started:.0f} s", file=sys.stderr)


def pack(folder: Path, target: Path) -> Path:
    """Write what a reader needs of the built book into a zip, the same for the same book."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    files["LICENSE"] = ROOT / "LICENSE"
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as packed:
        for name, path in sorted(files.items()):
            if path.is_file() and not any(fnmatch.fnmatch(name, unread) for unread in UNREAD):
                entry = zipfile.ZipInfo(f"{target.stem}/{name}")  # without a time
                entry.external_attr = 0o644 << 16
                packed.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED, 9)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data.getvalue())
    return target


def serve(port: int) -> None:
    """Serve the built book on the loopback address until interrupted."""
    build()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=HTML)
    try:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    except OSError as error:
        raise SystemExit(f"error: port {port} is taken (make serve PORT=...): {error}") from None
    with server:
        print(f"http://127.0.0.1:{server.server_port}/  (Ctrl-C stops)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()


def main() -> None:
    """Run the command that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    building = commands.add_parser("build", help="build the book if its sources changed")
    building.add_argument("--force", action="store_true", help="build in any case")
    commands.add_parser("zip", help="build the book if need be and pack it to take along")
    serving = commands.add_parser("serve", help="serve the book on this machine only")
    serving.add_argument("--port", type=int, default=8000)
    arguments = parser.parse_args()
    if arguments.command == "build":
        print(f"The book: {build(arguments.force).as_uri()}")
    elif arguments.command == "zip":
        size = pack(build().parent, ZIP).stat().st_size
        print(f"{ZIP}  {size / 1e6:.1f} MB; unpack it anywhere and open dpo_book/index.html")
        if size > ZIP_LIMIT:
            raise SystemExit(f"error: it has more than {ZIP_LIMIT / 1e6:.0f} MB")
    else:
        serve(arguments.port)


if __name__ == "__main__":
    main()
