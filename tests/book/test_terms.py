"""The glossary in the chapters, and the links between the chapters and the API page."""

import importlib
import inspect
import pkgutil
import re
from types import SimpleNamespace

import dpo_api
import dpo_terms
import pytest
from axe_playwright_python.sync_playwright import Axe
from docutils import nodes
from docutils.utils import new_document

import dpo_lib
from tests.book.pages import DOCUMENTS, HTML, parsed
from tests.book.test_reader import AXE_OPTIONS

CORE = [name.partition(".")[2] for name in dpo_api.module_names()][:7]  # as far as the data
MARKED = [f"{name}.html" for name in DOCUMENTS if name in dpo_terms.MARKED]
CHAPTER = "notebooks/05_sequence_log_probs.html"
GLOSSARY = f"{dpo_terms.GLOSSARY}.html"
API = f"{dpo_api.PAGE}.html"


# --- finding terms -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("policy", "the policy of", "policy"),
        ("policy", "two policies differ", "policies"),
        ("policy", "Policy first", "Policy"),
        ("policy", "the policy's", "policy"),
        ("policy", "on-policy data", None),
        ("policy", "a policymaker", None),
        ("policy", "policy-gradient", None),
        ("mask", "unmasked pads", None),
        ("nat", "a nation", None),
        ("logit", "four logits", "logits"),
        ("KL", "its KL is", "KL"),
        ("KL", "the kl of", None),
        ("Bradley–Terry model", "a Bradley-Terry\nmodel", "Bradley-Terry\nmodel"),
        ("best of n", "a best-of-n pick", "best-of-n"),
        ("log-probability", "log-probabilities", "log-probabilities"),
        ("softmax", "softmaxes", "softmaxes"),
    ],
)
def test_names_are_found_in_their_forms_and_not_inside_other_words(name, text, found):
    entries = [dpo_terms.Entry("term-x", (name,), nodes.paragraph())]
    match = dpo_terms.terms_pattern(entries).search(text)
    assert (match and match[0]) == found


def page(*content):
    document = new_document("a page")
    section = nodes.section("", nodes.title("", "A policy and its reward"))
    section += content
    document += section
    return document


def entry(*names):
    return dpo_terms.Entry(f"term-{names[0]}", names, nodes.paragraph("", f"What {names[0]} is."))


def marked(document, *entries):
    dpo_terms.mark_terms(document, list(entries), "glossary.html")
    return [link.astext() for link in document.findall(dpo_terms.TermLink)]


def test_only_the_first_occurrence_in_running_prose_is_marked():
    document = page(
        nodes.paragraph("", "", nodes.strong("", "policy"), nodes.Text(" here, ")),
        nodes.paragraph("", "", nodes.literal("", "policy"), nodes.reference("", "policy")),
        nodes.paragraph("", "", nodes.Text("a policy, a policy and a "), nodes.math("", "policy")),
        nodes.paragraph("", "and the policy."),
    )
    text = document.astext()
    assert marked(document, entry("policy")) == ["policy"]
    assert document.astext() == text
    link = next(document.findall(dpo_terms.TermLink))
    assert link.parent is document[0][3]
    assert link["refuri"] == "glossary.html#term-policy"
    assert link["tip"] == "tip-policy"


def test_the_longer_name_wins_and_two_terms_to_a_paragraph_are_enough():
    document = page(
        nodes.paragraph("", "A reward model gives rewards to the policy by a margin."),
        nodes.paragraph("", "The margin of the policy."),
    )
    terms = [entry("reward"), entry("reward model"), entry("policy"), entry("margin")]
    assert marked(document, *terms) == ["reward model", "rewards", "margin", "policy"]


def test_names_of_one_entry_count_as_one_term():
    document = page(nodes.paragraph("", "SFT, that is supervised fine-tuning, or SFT."))
    assert marked(document, entry("supervised fine-tuning", "SFT")) == ["SFT"]


def test_a_tooltip_has_no_links():
    definition = nodes.paragraph(
        "", "", nodes.Text("See "), nodes.reference("", "there", refuri="x"), nodes.math("", "z")
    )
    tip = dpo_terms.tooltip(dpo_terms.Entry("term-x", ("x",), definition))
    assert tip.astext() == "x See therez"
    assert not list(tip.findall(nodes.reference))
    assert len(list(tip.findall(nodes.math))) == 1


# --- the glossary's page -----------------------------------------------------------------------


def test_entries_are_short_in_order_and_say_where_they_are_taught(book):
    items = parsed(HTML / GLOSSARY).select("dl.glossary > dd")
    assert len(items) >= 50
    first_names = []
    for item in items:
        name = item.find_previous_siblings("dt")[0]
        while (before := name.find_previous_sibling()) is not None and before.name == "dt":
            name = before
        first_names.append(name.get_text(" ", strip=True).rstrip(" #").lower())
        definition, taught = item.select("p")
        sentences = re.findall(r"[.!?]\)?(?:\s|$)", definition.get_text())
        assert 1 <= len(sentences) <= 3, definition.get_text()
        assert taught.get_text().startswith("Taught in "), first_names[-1]
        letters = re.findall(r"appendix ([A-G])", taught.get_text())
        written = [x for x in letters if any(f"/{x.lower()}_" in name for name in DOCUMENTS)]
        chapters = taught.get_text().count("chapter")
        assert len(taught.select("a")) == len(written) + chapters, first_names[-1]
    assert first_names == sorted(first_names)


@pytest.mark.parametrize("name", MARKED)
def test_each_term_is_marked_once_and_has_its_definition(book, name):
    html = parsed(HTML / name)
    links = html.select("a.dpo-term")
    assert links, "a chapter without a term of the glossary"
    described = [link["aria-describedby"] for link in links]
    assert len(described) == len(set(described))
    tips = {tip["id"]: tip for tip in html.select(".dpo-tips[hidden] > .dpo-tip[role=tooltip]")}
    assert sorted(tips) == sorted(described)
    assert not any(tip.select("a, button, [tabindex]") for tip in tips.values())
    for link in links:
        assert not link.find_parent(["h1", "h2", "h3", "a", "code", "figcaption", "table", "pre"])


# --- in the browser ----------------------------------------------------------------------------


def boxes(page):
    return page.evaluate(
        """() => [...document.querySelectorAll("article p, article h2")]
            .map((e) => e.getBoundingClientRect()).map((r) => [r.x + scrollX, r.y + scrollY])"""
    )


def shown(page):
    return page.locator(".dpo-tip").filter(visible=True)


def inside(page, tip):
    box, size = tip.bounding_box(), page.viewport_size
    return (
        box["x"] >= 0
        and box["y"] >= 0
        and box["x"] + box["width"] <= size["width"]
        and box["y"] + box["height"] <= size["height"]
    )


@pytest.mark.parametrize("scheme", ["file", "http"])
def test_by_keyboard(open_page, scheme):
    page = open_page(CHAPTER, scheme)
    term = page.locator("a.dpo-term").first
    before = boxes(page)
    assert shown(page).count() == 0
    assert not page.locator(".dpo-tip").first.is_visible()

    page.locator("article h1 a").first.focus()
    for _ in range(100):  # past the list of pages
        page.keyboard.press("Tab")
        if term.evaluate("e => e === document.activeElement"):
            break
    assert term.evaluate("e => e === document.activeElement"), "the Tab key does not reach it"
    assert shown(page).count() == 1
    tip = shown(page).first
    assert tip.get_attribute("id") == term.get_attribute("aria-describedby")
    assert tip.get_attribute("role") == "tooltip"
    assert inside(page, tip)
    assert boxes(page) == before, "the text moved"

    page.keyboard.press("Escape")
    assert shown(page).count() == 0
    assert term.evaluate("e => e === document.activeElement")

    anchor = term.get_attribute("href").partition("#")[2]
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(rf"{GLOSSARY}#"))
    assert page.url.endswith(f"#{anchor}")
    assert page.locator(f"[id='{anchor}']").count() == 1


def test_by_mouse(open_page):
    page = open_page(CHAPTER)
    term = page.locator("a.dpo-term").nth(3)
    term.scroll_into_view_if_needed()
    term.hover()
    tip = page.locator(f"[id='{term.get_attribute('aria-describedby')}']")
    tip.wait_for(state="visible")
    box = tip.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=12)
    page.wait_for_timeout(500)
    assert tip.is_visible(), "it closes under the pointer"
    page.mouse.move(5, 5)
    tip.wait_for(state="hidden")

    term.hover()
    tip.wait_for(state="visible")
    page.keyboard.press("Escape")
    assert not tip.is_visible()


def test_by_touch_on_a_phone(browser, site):
    context = browser.new_context(viewport={"width": 360, "height": 740}, has_touch=True)
    try:
        page = context.new_page()
        page.goto(site["file"] + CHAPTER, wait_until="load")
        page.evaluate("() => window.MathJax.startup.promise.then(() => true)")
        for number in range(page.locator("a.dpo-term").count()):
            term = page.locator("a.dpo-term").nth(number)
            if not term.is_visible():  # in a closed solution
                continue
            term.scroll_into_view_if_needed()
            term.tap()
            assert shown(page).count() == 1
            assert shown(page).get_attribute("id") == term.get_attribute("aria-describedby")
            assert inside(page, shown(page).first), term.inner_text()
        assert page.url.endswith(CHAPTER), "the first tap left the page"
        page.locator("article h1").tap()
        assert shown(page).count() == 0, "a tap elsewhere does not close it"
        term = page.locator("a.dpo-term").first
        term.tap()
        term.tap()
        page.wait_for_url(re.compile(rf"{GLOSSARY}#"))
    finally:
        context.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_an_open_definition_meets_accessibility_rules(open_page, theme):
    page = open_page(CHAPTER, theme=theme)
    page.locator("a.dpo-term").first.focus()
    assert shown(page).count() == 1
    found = Axe().run(page, context=".dpo-tips", options=AXE_OPTIONS).response["violations"]
    assert [(rule["id"], [node["html"][:120] for node in rule["nodes"]]) for rule in found] == []
    colors = shown(page).first.evaluate(
        "e => [getComputedStyle(e).backgroundColor, getComputedStyle(document.body).color]"
    )
    assert len(set(colors)) == 2


# --- the API page --------------------------------------------------------------------------------


def test_every_public_name_has_an_entry(book):
    ids = {tag["id"] for tag in parsed(HTML / API).select("dt[id]")}
    known = dpo_api.identities()
    missing = [
        name
        for name in dpo_lib.__all__
        if not callable(getattr(dpo_lib, name)) or known.get(id(getattr(dpo_lib, name))) not in ids
        if not any(full.endswith(f".{name}") for full in ids)
    ]
    assert missing == []
    for module in CORE:
        functions = [
            f"dpo_lib.{module}.{name}"
            for name, value in vars(importlib.import_module(f"dpo_lib.{module}")).items()
            if inspect.isroutine(value) or inspect.isclass(value)
            if not name.startswith("_") and value.__module__.split(".")[:2] == ["dpo_lib", module]
        ]
        assert functions
        assert sorted(set(functions) - ids) == []


def test_every_public_module_has_a_section_in_the_order_of_the_derivation(book):
    titles = [tag.get_text() for tag in parsed(HTML / API).select("article h2 code")]
    modules = [f"dpo_lib.{m.name}" for m in pkgutil.iter_modules(dpo_lib.__path__)]
    public = [name for name in modules if "._" not in name]
    empty = [name for name, members in dpo_api.public_names().items() if not members]
    assert sorted(titles) == sorted(set(public) - set(empty))
    places = [titles.index(f"dpo_lib.{name}") for name in CORE]
    assert places == sorted(places)


def test_an_entry_says_who_uses_it_and_leads_there(book):
    html = parsed(HTML / API)
    used_in = html.find(id="dpo_lib.losses.dpo_loss").parent.select_one(".dpo-used-in")
    pages = {link.get_text(): link["href"] for link in used_in.select("a")}
    assert {"chapter 9", "chapter 10"} <= pages.keys()
    assert pages["chapter 9"].startswith("../../notebooks/09_dpo_loss.html#")
    entries = html.select("dt[id^='dpo_lib.losses.']")
    assert all(entry.select_one("a[href*='_modules/']") for entry in entries if "(" in entry.text)


def test_code_in_a_chapter_leads_to_its_entry(book):
    links = parsed(HTML / "notebooks/10_full_implementation.html").select("a.dpo-api")
    found = {link.get_text(): link["href"] for link in links}
    target = f"../{API}#dpo_lib.training."
    assert found["train_dpo"] == f"{target}train_dpo"
    assert found["dpo_training_step"] == f"{target}dpo_training_step"
    assert all(link.select_one("code") for link in links)


def test_uses_are_read_from_imports_not_from_names():
    imports = dpo_api.Imports()
    assert imports.used("from dpo_lib import dpo_loss as loss, closed_form\nimport torch") == set()
    assert imports.used("loss(*logps)") == {"dpo_lib.losses.dpo_loss"}
    assert imports.used("closed_form.entropy(p); entropy(p)") == {"dpo_lib.closed_form.entropy"}
    assert imports.used("dpo_lib.data.read_jsonl(p)") == {"dpo_lib.data.read_jsonl"}
    assert imports.used("dpo_reward = 3; print(dpo_reward)") == set()
    assert imports.used("%timeit loss()") == set()


def test_a_use_leads_to_the_first_section_that_has_it(monkeypatch):
    full = "dpo_lib.losses.dpo_loss"
    monkeypatch.setattr(dpo_api, "names_of", lambda env: {"dpo_loss": full})
    monkeypatch.setattr(dpo_api, "NOTEBOOKS", ("page", "other"))
    page, empty = new_document("page"), new_document("other")
    page += nodes.section("", ids=["title"])
    for name in ("none", "code", "words", "both"):
        section = nodes.section("", ids=[name])
        if name in ("code", "both"):
            section += nodes.literal_block("", "from dpo_lib import dpo_loss as f\nf(*logps)")
        if name in ("words", "both"):
            section += nodes.literal("", "dpo_loss")
        page[0] += section
    env = SimpleNamespace(get_doctree={"page": page, "other": empty}.get)
    assert dpo_api.uses(env) == {full: [("page", "code")]}


def test_short_names_are_left_out_where_they_could_mean_two_things():
    def target(objtype):
        return SimpleNamespace(docname=dpo_api.PAGE, aliased=False, objtype=objtype)

    objects = {
        "dpo_lib.a.f": target("function"),
        "dpo_lib.b.f": target("function"),
        "dpo_lib.b.g": target("function"),
        "dpo_lib.b": target("module"),
        "dpo_lib.b.C": target("class"),
        "dpo_lib.b.C.m": target("method"),
    }
    env = SimpleNamespace(get_domain=lambda name: SimpleNamespace(objects=objects))
    names = dpo_api.short_names(env)
    assert "f" not in names
    assert names["b.f"] == "dpo_lib.b.f"
    assert names["g"] == names["dpo_lib.g"] == "dpo_lib.b.g"
    assert names["C.m"] == "dpo_lib.b.C.m"
    assert "m" not in names
    assert "b" not in names


def test_fields_come_with_the_comments_of_the_source():
    fields = {name: (kind, about) for name, kind, about in dpo_api.fields_of(dpo_lib.DPOConfig)}
    assert fields["beta"][0] == "float"
    assert fields["beta"][1]
    assert dpo_api.fields_of(dict) == []
