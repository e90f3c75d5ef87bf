// Runs in a page of the built book, as it stands when its formulas are set and its widgets drawn in
// their first state, and returns that page as it is read on paper: without what only a screen can
// do, ids and links unique in the whole book, hints, solutions, answers apart. Twice: `print` has formulas
// as MathJax drew them, for Chromium; `book` is XHTML with formulas as MathML, figures and
// widgets as images, for an EPUB. Called by tools/paper.py with the page's name and all names.
([name, names]) => {
  const slug = (page) => page.replaceAll("/", "-");
  const unique = (id, page = name) => `${slug(page)}--${id.replace(/[^\w.-]/g, "-")}`;
  const article = document.querySelector("article.bd-article");
  const root = new URL(document.documentElement.dataset.content_root, location.href);
  const all = (node, selector) => [...node.querySelectorAll(selector)];
  const rename = (node, tag, keep = ["class", "id"]) => {
    const made = document.createElement(tag);
    for (const key of keep) if (node.hasAttribute(key)) made.setAttribute(key, node.getAttribute(key));
    made.append(...node.childNodes);
    node.replaceWith(made);
    return made;
  };

  // --- figures: each an SVG of its own, with its styles in it -------------------------------
  const INHERITED = [
    "color", "fill", "fill-opacity", "fill-rule", "font-family", "font-size", "font-style", "font-weight",
    "letter-spacing", "marker-end", "marker-start", "paint-order", "stroke", "stroke-dasharray",
    "stroke-dashoffset", "stroke-linecap", "stroke-linejoin", "stroke-miterlimit", "stroke-opacity",
    "stroke-width", "text-anchor", "visibility", "white-space",
  ];
  const OWN = { "clip-path": "none", display: "inline", "dominant-baseline": "auto", mask: "none", opacity: "1",
    transform: "none", "stop-color": "rgb(0, 0, 0)", "stop-opacity": "1" };

  function standAlone(svg) {
    const copy = svg.cloneNode(true);
    const copies = [copy, ...all(copy, "*")];
    [svg, ...all(svg, "*")].forEach((element, i) => {
      const made = copies[i];
      const own = getComputedStyle(element);
      const above = element === svg ? null : getComputedStyle(element.parentElement);
      const rules = INHERITED.filter((key) => own[key] !== above?.[key]).map((key) => [key, own[key]]);
      for (const [key, usual] of Object.entries(OWN)) {
        if (element !== svg && own[key] !== usual && !element.hasAttribute(key)) rules.push([key, own[key]]);
      }
      for (const key of ["class", "style", "aria-label", "role"]) made.removeAttribute(key);
      const style = rules.map(([key, value]) => `${key}: ${value.replaceAll('"', "'")}`).join("; ");
      if (style) made.setAttribute("style", style.replace(/url\('[^']*#([^']*)'\)/g, "url(#$1)"));
    });
    for (const sheet of all(copy, "style, title, desc, metadata")) sheet.remove();
    const [, , width, height] = svg.getAttribute("viewBox").split(/[\s,]+/).map(Number);
    const shown = parseFloat(svg.style.width) || width;
    copy.setAttribute("width", shown);
    copy.setAttribute("height", (shown * height) / width);
    return { text: new XMLSerializer().serializeToString(copy), width: shown };
  }

  const images = {};
  const figures = all(article, ".dpo-figure > svg").map((svg, i) => {
    const { text, width } = standAlone(svg);
    const file = `images/${slug(name)}-${i + 1}.svg`;
    images[file] = text;
    return { file, alt: svg.getAttribute("aria-label"), width };
  });

  // --- the page without what is of no use on paper ------------------------------------------
  // Values of fields are no attributes: they are read here, and written into the copy below.
  const quizzes = {}; // number of the widget: its questions, each with its right answer and why
  all(article, ".dpo-static").forEach((widget, i) => {
    widget.dataset.number = i + 1;
    const spec = JSON.parse(widget.querySelector("script[type='application/json']")?.textContent ?? "{}");
    if (spec.kind === "quiz") {
      quizzes[i + 1] = { title: spec.title, right: spec.data.questions.map(({ answers, right }) => answers[right]) };
    }
  });
  all(article, "input, select, textarea").forEach((field) => {
    const shown = field.matches("select") ? field.selectedOptions[0]?.textContent : field.value;
    field.dataset.shown = shown ?? "";
    field.dataset.checked = field.checked ? "☑" : "☐";
  });
  // Room that a widget keeps for later words.
  for (const node of all(article, ".dpo-widget :not(svg, svg *)")) {
    if (getComputedStyle(node).visibility === "hidden") node.dataset.unseen = "";
  }
  // The front page takes MathJax's MathML out of its formulas: ask for it.
  const formulas = [...(window.MathJax?.startup?.document.math ?? [])].map((item, i) => {
    item.typesetRoot.dataset.formula = i;
    return MathJax.startup.document.toMML(item.root);
  });
  const copy = article.cloneNode(true);

  all(copy, ".dpo-figure > svg").forEach((svg, i) => {
    const image = document.createElement("img");
    image.src = figures[i].file;
    image.alt = figures[i].alt;
    image.width = Math.round(figures[i].width);
    svg.replaceWith(image);
  });
  const GONE = [
    "script", "style", "noscript", "template", ".headerlink", ".copybtn", ".toggle-button", ".viewcode-link", ".dpo-tips", ".dpo-hidden",
    ".dpo-fallback", ".dpo-button:not(.dpo-step)", "progress", "[hidden]", "[data-unseen]", ".toctree-wrapper", ".dpo-preview > :not(.dpo-widget)",
    "summary:has(.collapsed)", "input[type=file]", ".backrefs",
  ];
  for (const node of all(copy, GONE.join(", "))) {
    if (!node.matches(".dpo-fallback") || node.parentElement.querySelector(".dpo-view")) node.remove();
  }
  for (const group of all(copy, ".dpo-controls")) {
    for (const control of all(group, ".dpo-control")) {
      const input = control.querySelector("input, select");
      const label = control.querySelector("label");
      const value = document.createElement("span");
      const output = control.querySelector("output");
      value.textContent = input.type === "checkbox" ? ` ${input.dataset.checked}` : `: ${output?.textContent ?? input.dataset.shown}`;
      const line = document.createElement("li");
      line.append(...label.childNodes, value);
      control.replaceWith(line);
    }
    if (group.querySelector("li")) rename(group, "ul");
  }
  const mark = (text) => Object.assign(document.createElement("span"), { className: "dpo-mark", textContent: `${text} ` });
  for (const field of all(copy, "input, select, textarea, output, label")) {
    if (field.matches("textarea")) rename(field, "pre").textContent = field.dataset.shown;
    else if (field.matches("output, label")) rename(field, "span", ["class"]);
    else if (field.matches("[type=radio], [type=checkbox]")) field.replaceWith(mark(field.dataset.checked));
    else field.replaceWith(Object.assign(document.createElement("span"), { className: "dpo-typed", textContent: field.dataset.shown }));
  }
  for (const choice of all(copy, ".dpo-widget span:has(> .dpo-mark)")) rename(choice, "div");
  for (const group of all(copy, "fieldset")) rename(group, "div", ["class"]);
  for (const legend of all(copy, "legend")) rename(legend, "p", []).className = "dpo-asked";
  for (const button of all(copy, "button")) rename(button, "span", ["class"]);
  for (const summary of all(copy, "summary")) rename(summary, "p", []).className = "unfolded";
  for (const details of all(copy, "details")) rename(details, "div", details.matches(".hide") ? [] : ["class", "id"]);
  for (const node of all(copy, ".dropdown")) node.classList.remove("dropdown", "toggle", "toggle-hidden");
  for (const box of all(copy, ".dpo-actions, .dpo-controls")) if (!box.textContent.trim()) box.remove();

  // --- names ----------------------------------------------------------------------------------
  const REFERS = ["for", "aria-labelledby", "aria-describedby", "aria-controls", "headers", "list"];
  for (const node of all(copy, "*")) {
    for (const { name: key, value } of [...node.attributes]) {
      if (key === "id") node.id = unique(value);
      else if (REFERS.includes(key) || key.startsWith("on") || (key.startsWith("data-") && !/number|formula/.test(key))
        || ["tabindex", "contenteditable", "spellcheck", "autocomplete", "target", "rel"].includes(key)) node.removeAttribute(key);
      else if (value.includes("url(#")) node.setAttribute(key, value.replace(/url\(#([^)]+)\)/g, (_, id) => `url(#${unique(id)})`));
    }
    for (const key of ["href", "xlink:href"]) {
      if (!node.hasAttribute(key)) continue;
      const there = new URL(node.getAttribute(key), location.href);
      if (there.protocol !== location.protocol) continue;
      const path = there.pathname.slice(root.pathname.length).replace(/\.html$/, "");
      const id = decodeURIComponent(there.hash.slice(1));
      if (names.includes(path)) node.setAttribute(key, `#${id ? unique(id, path) : slug(path)}`);
      else if (node.namespaceURI.endsWith("xhtml")) node.replaceWith(...node.childNodes);
      else node.removeAttribute(key);
    }
  }

  // --- hints, solutions and answers go to the end of the book ---------------------------------
  const answers = document.createElement("div");
  const withSubscripts = (text) => text.split(/_\{?(ref|\w)\}?(?!\w)/).map((part, i) => {
    return i % 2 ? Object.assign(document.createElement("sub"), { textContent: part }) : part;
  });
  function linkTo(box, words) {
    return Object.assign(document.createElement("a"), { href: `#${box.id}`, className: "with-page", textContent: words });
  }
  function answersTo(widget, { title, right }) {
    const box = Object.assign(document.createElement("div"), { className: "admonition", id: unique(`quiz-${widget.dataset.number}`) });
    const heading = Object.assign(document.createElement("p"), { className: "admonition-title" });
    widget.id ||= `${box.id}-questions`;
    heading.append("Answers to ", Object.assign(document.createElement("a"), { href: `#${widget.id}`, textContent: title }));
    const list = document.createElement("ol");
    for (const [said, why] of right) {
      const line = document.createElement("li");
      line.append(...withSubscripts(`${said} ${why}`));
      list.append(line);
    }
    box.append(heading, list);
    const back = Object.assign(document.createElement("p"), { className: "to-answers" });
    back.append(linkTo(box, "Answers"));
    widget.append(back);
    return box;
  }
  let exercise = null;
  for (const box of all(copy, ".exercise, .solution, .admonition.hint, .dpo-static")) {
    if (box.matches(".dpo-static")) {
      const quiz = quizzes[box.dataset.number];
      if (quiz) answers.append(answersTo(box, quiz));
      continue;
    }
    if (box.matches(".exercise")) {
      exercise = box;
      continue;
    }
    const moved = [box];
    const isCode = (node) => node?.matches(".cell") && node.textContent.trim().startsWith("# Solution");
    if (box.matches(".solution")) {
      let next = box.nextElementSibling;
      if (next?.matches(".solution")) next = null;
      while (isCode(next)) {
        moved.push(next);
        next = next.nextElementSibling;
      }
    }
    if (box.matches(".solution")) {
      const link = box.querySelector(".admonition-title a");
      exercise = copy.querySelector(`[id="${link.getAttribute("href").slice(1)}"]`) ?? exercise;
    } else {
      const title = exercise.querySelector(".admonition-title");
      const link = Object.assign(document.createElement("a"), { href: `#${exercise.id}` });
      link.append(...title.cloneNode(true).childNodes);
      box.querySelector(".admonition-title").append(" to ", link);
      box.id ||= `${exercise.id}-hint`;
    }
    const back = exercise.querySelector(".to-answers") ?? document.createElement("p");
    if (!back.parentElement) {
      back.className = "to-answers";
      exercise.append(back);
    }
    if (back.childNodes.length) back.append(" · ");
    back.append(linkTo(box, box.matches(".solution") ? "Solution" : "Hint"));
    answers.append(...moved);
  }

  // --- the two forms --------------------------------------------------------------------------
  const rules = [...document.styleSheets].filter((sheet) => /MJX/.test(sheet.ownerNode.id))
    .flatMap((sheet) => [...sheet.cssRules]).map((rule) => rule.cssText);
  const title = copy.querySelector("h1").cloneNode(true);
  for (const box of all(title, "mjx-container")) {
    box.replaceWith(formulas[box.dataset.formula].replace(/<[^>]*>|\s+/g, ""));
  }

  function printed(node) {
    const made = node.cloneNode(true);
    for (const box of all(made, "mjx-assistive-mml")) box.remove();
    return made.innerHTML;
  }
  const XHTML = "http://www.w3.org/1999/xhtml";
  function packed(node) {
    const made = node.cloneNode(true);
    for (const box of all(made, "mjx-container")) {
      const parsed = new DOMParser().parseFromString(formulas[box.dataset.formula], "application/xml");
      const math = document.importNode(parsed.documentElement, true);
      for (const part of [math, ...all(math, "*")]) {
        for (const { name: key } of [...part.attributes]) if (/^(data-|href$|class$)/.test(key)) part.removeAttribute(key);
      }
      math.setAttribute("alttext", math.textContent.trim());
      box.replaceWith(math);
    }
    for (const view of all(made, ".dpo-view:has(svg)")) {
      const number = view.closest(".dpo-static").dataset.number;
      const said = view.parentElement.querySelector(".dpo-status")?.textContent ?? "";
      const image = Object.assign(document.createElement("img"), { src: `images/${slug(name)}-widget-${number}.png`, alt: said });
      view.replaceChildren(image);
    }
    for (const kept of all(made, "[data-number]")) kept.removeAttribute("data-number");
    const text = [...made.childNodes].map((child) => new XMLSerializer().serializeToString(child)).join("");
    return text.replaceAll(` xmlns="${XHTML}"`, "");
  }
  return {
    title: title.textContent,
    rules,
    images,
    print: { text: printed(copy), answers: printed(answers) },
    book: { text: packed(copy), answers: packed(answers) },
    styles: [...document.querySelectorAll("link[rel=stylesheet]")].map((link) => link.href.slice(root.href.length)),
  };
}
