"""What the reader does in a chapter is counted on the page of what they have done."""

import json
import re

import pytest

from tests.book.pages import HTML

MARKUP = re.compile(r"<[^>]*>|\\[()]")


def counted(page):
    return page.locator(".dpo-value").all_inner_texts()


@pytest.mark.usefixtures("book")
def test_each_link_leads_to_what_it_names():
    texts = {}  # of the pages that it links to
    page = (HTML / "book" / "done.html").read_text(encoding="utf-8")
    (spec,) = map(json.loads, re.findall(r'<script type="application/json">(.*?)</script>', page))
    for chapter in spec["data"]["chapters"]:
        quiz, clicks = chapter.get("quiz"), chapter.get("clicks")
        named = [(bet["href"], f'"name":"{bet["name"]}"') for bet in chapter["bets"]]
        titles = {exercise["title"]: exercise["href"] for exercise in chapter["exercises"]}
        named += [(href, title) for title, href in titles.items()]
        named += [(quiz["href"], 'data-dpo-widget="quiz"')] if quiz else []
        named += [(clicks["href"], 'data-dpo-widget="annotator"')] if clicks else []
        for href, what in named:
            name, _, anchor = href.partition("#")
            if name not in texts:
                texts[name] = (HTML / "book" / name).read_text(encoding="utf-8")
            _, _, below = texts[name].partition(f'id="{anchor}"' if anchor else "<main")
            if what in titles:
                below = MARKUP.sub("", below[:2000])
            assert what in below, href


@pytest.mark.parametrize("scheme", ["file", "http"])
def test_a_question_a_bet_and_a_tick_are_counted(browser, site, scheme):
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{site[scheme]}book/done.html")
    page.locator(".dpo-done").wait_for()
    before = counted(page)
    assert [text.split()[0] for text in before] == ["0"] * 5
    kept_by = {"file": "pages that are opened from", "http": site["http"].removesuffix("/")}
    assert page.get_by_text(f"Kept by this browser for {kept_by[scheme]}").count() == 1

    page.goto(f"{site[scheme]}notebooks/02_bradley_terry.html")
    page.evaluate("window.dpoBook.bring()")
    quiz = page.locator("[data-dpo-widget=quiz]")
    quiz.get_by_role("radio").first.check()
    quiz.get_by_role("button", name="Check question 1").click()
    bet = page.locator("[data-dpo-widget=bet]", has_text="never loses")
    bet.get_by_role("radio", name="higher than any number").check()
    bet.get_by_role("button", name="Place my bet").click()

    page.goto(f"{site[scheme]}book/done.html")
    page.get_by_text("Chapter 2", exact=True).click()
    page.get_by_role("checkbox", name="Done: Build it: two scores, one probability").check()
    assert [text.split()[0] for text in counted(page)] == ["1", "1", "1", "1", "0"]
    assert [text.split()[1:] for text in counted(page)][:3] == [t.split()[1:] for t in before][:3]
    page.get_by_role("link", name="Build it: two scores, one probability").click()
    page.wait_for_url("**/02_bradley_terry.html#ex-bt-build")
    assert page.locator("#ex-bt-build").is_visible()
    context.close()
