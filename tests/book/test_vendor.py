"""What is vendored is what its manifest says it is."""

import hashlib
import json

import pytest

from tests.book.pages import ROOT

JS_VENDOR = ROOT / "dpo_lib" / "widgets" / "js" / "vendor"
FOLDERS = {
    "mathjax": ROOT / "book" / "_static" / "vendor" / "mathjax",
    "micropython": JS_VENDOR / "micropython",
}
LICENCES = {"mathjax": ("Apache-2.0", "Apache License"), "micropython": ("MIT", "The MIT License")}
MANIFESTS = {
    name: json.loads((folder / "manifest.json").read_text()) for name, folder in FOLDERS.items()
}


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", FOLDERS)
def test_files_are_the_recorded_ones(name):
    folder = FOLDERS[name]
    files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    del files["manifest.json"]
    assert {file: sha256(path) for file, path in files.items()} == MANIFESTS[name]["files"]


def test_bundle_is_made_from_the_present_entry():
    entry = MANIFESTS["mathjax"]["entry"]
    assert sha256(ROOT / entry["path"]) == entry["sha256"], "run tools/vendor.py"


@pytest.mark.parametrize("name", FOLDERS)
def test_licence_is_there(name):
    licence, words = LICENCES[name]
    assert MANIFESTS[name]["licence"] == licence
    assert words in (FOLDERS[name] / "LICENSE").read_text()


def test_nothing_is_vendored_without_a_record():
    """The record of d3, which is one file, is compared in tests/widgets/test_join.py."""
    recorded = {
        folder / file for name, folder in FOLDERS.items() for file in MANIFESTS[name]["files"]
    }
    recorded |= {folder / "manifest.json" for folder in FOLDERS.values()}
    recorded |= {JS_VENDOR / "d3.js", JS_VENDOR / "d3.json"}
    places = [place for top in ("book", "dpo_lib") for place in (ROOT / top).rglob("vendor")]
    found = {file for place in places for file in place.rglob("*") if file.is_file()}
    assert found == recorded
