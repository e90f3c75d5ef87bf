"""The joined script, the vendored bundle and the palette."""

import colorsys
import hashlib
import json
import re
from pathlib import Path

import pytest

from dpo_lib.widgets import join

ROOT = Path(__file__).parents[2]
VENDOR = join.JS_DIR / "vendor"


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_d3_bundle_is_the_one_that_its_record_describes():
    record = json.loads((VENDOR / "d3.json").read_text(encoding="utf-8"))
    source = ROOT / "tools" / "bundle_d3"
    assert sha256(VENDOR / "d3.js") == record["bundle_sha256"]
    assert sha256(source / "entry.js") == record["entry_sha256"], "run tools/bundle_d3/build.mjs"
    assert sha256(source / "package-lock.json") == record["lock_sha256"]
    lock = json.loads((source / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    for package in record["packages"]:
        assert lock[f"node_modules/{package['name']}"]["version"] == package["version"]
        assert package["license"] == "ISC"
        assert "Permission to use, copy, modify" in package["license_text"]


def test_all_that_the_modules_take_from_d3_is_in_the_bundle():
    offered = set(re.findall(r" as (\w+)", (VENDOR / "d3.js").read_text().rsplit("export", 1)[1]))
    for path in join.JS_DIR.rglob("*.js"):
        for names in re.findall(r"\{([^}]*)\} from \"[./]*vendor/d3\.js\"", path.read_text()):
            wanted = {name.split(" as ")[0].strip() for name in names.split(",") if name.strip()}
            assert wanted <= offered, path.name


def test_the_script_reaches_for_nothing_outside():
    for text in (join.static_script(), *map(join.esm, join.kinds()), join.static_css()):
        addresses = set(re.findall(r"(?:https?:)?//[a-z][\w.-]*\.[a-z]+[^\s\"'`)]*", text))
        # Names of XML namespaces, which nobody fetches.
        assert all("//www.w3.org/" in address for address in addresses), addresses
        assert "@import" not in text
        assert "url(" not in text


def test_a_page_can_take_only_the_widgets_it_shows():
    every, none = join.static_script(), join.static_script([])
    one = join.static_script(["score_sigmoid"])
    assert len(none) < len(one) < len(every)
    assert "score_sigmoid" in one
    assert "loss_and_gradient" not in one
    assert join.static_script(["score_sigmoid", "score_sigmoid"]) == one
    assert "</script" not in every  # it may be put inline
    with pytest.raises(ValueError, match="no_such"):
        join.static_script(["no_such"])


@pytest.fixture
def modules(tmp_path, monkeypatch):
    def write(**sources):
        for name, source in sources.items():
            (tmp_path / f"{name}.js").write_text(source, encoding="utf-8")

    join._source.cache_clear()
    monkeypatch.setattr(join, "JS_DIR", tmp_path)
    yield write
    join._source.cache_clear()


def test_imports_and_exports_become_scopes(modules):
    modules(
        low="const a = 1;\nexport const b = 2;\nexport function f() {}\nexport { a as one };\n",
        high='import { one as uno, b } from "./low.js";\nimport * as low from "./low.js";\nuno;\n',
    )
    order = join._in_import_order(["high.js"])
    assert order == ["low.js", "high.js"]
    text = join._scopes(order)
    assert "return { b, f, one: a };" in text
    assert "const { one: uno, b } = module_low;" in text
    assert "const low = module_low;" in text
    assert "import" not in text
    assert "export" not in text


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("export default 1;\n", "not supported"),
        ('import x from "./b.js";\n', "not supported"),
        ('import { x } from "d3";\n', "cannot import"),
        ('import { x } from "../b.js";\n', "cannot import"),
        ('import { x } from "./missing.js";\n', "cannot import"),
        ('import { x } from "./a.js";\n', "cycle"),
    ],
)
def test_what_the_joiner_cannot_do_is_an_error(modules, source, said):
    modules(a=source)
    with pytest.raises(ValueError, match=said):
        join._scopes(join._in_import_order(["a.js"]))


def contrast(one, other):
    def luminance(color):
        channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colors_can_be_read(theme):
    colors = join.palette(theme)
    assert len(colors) == 16
    for name, color in colors.items():
        if name not in ("paper", "grid"):  # the grid is decoration
            wanted = 4.5 if name.endswith("-text") else 3.0
            assert contrast(color, colors["paper"]) >= wanted, name


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_color_its_words_and_its_other_theme_s_are_of_one_hue(theme):
    def hue(color):
        channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        return colorsys.rgb_to_hsv(*channels)[0]

    hues = {
        name: hue(join.palette("light")[name])
        for name in ("chosen", "rejected", "policy", "reference", "accent")
    }
    for name, color in join.palette(theme).items():
        meaning = name.removesuffix("-text")
        if meaning in hues:
            off = {other: abs((hue(color) - at + 0.5) % 1 - 0.5) for other, at in hues.items()}
            assert min(off, key=off.get) == meaning, name


def test_the_light_palette_is_that_of_the_figures():
    from dpo_lib import figures

    for name, color in join.palette("light").items():
        if "-" not in name:
            assert getattr(figures, name.upper()) == color
