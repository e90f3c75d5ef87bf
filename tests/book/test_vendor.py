"""What is vendored is what its manifest says it is."""

import hashlib
import json

from tests.book.pages import ROOT

FOLDER = ROOT / "book" / "_static" / "vendor" / "mathjax"
MANIFEST = json.loads((FOLDER / "manifest.json").read_text())


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_files_are_the_recorded_ones():
    files = {p.relative_to(FOLDER).as_posix(): p for p in FOLDER.rglob("*") if p.is_file()}
    del files["manifest.json"]
    assert {name: sha256(path) for name, path in files.items()} == MANIFEST["files"]


def test_bundle_is_made_from_the_present_entry():
    entry = MANIFEST["entry"]
    assert sha256(ROOT / entry["path"]) == entry["sha256"], "run tools/vendor.py"


def test_licence_is_there():
    assert MANIFEST["licence"] == "Apache-2.0"
    assert "Apache License" in (FOLDER / "LICENSE").read_text()
