// Links inside a formula: MathJax hides what it draws from screen readers, who get its MathML
// instead; a link must not be in a hidden part, and needs a name. So here the drawing stays in
// reach, its glyphs do not, and the names stand in the page.
(() => {
  const open = () => {
    for (const box of document.querySelectorAll(".dpo-formula")) {
      const names = JSON.parse(box.dataset.names ?? "[]");
      const links = [...box.querySelectorAll("mjx-math a[href]")];
      links.forEach((link, place) => {
        link.setAttribute("aria-label", names[place]);
        link.title = names[place];
      });
      for (const math of box.querySelectorAll("mjx-math")) math.removeAttribute("aria-hidden");
      for (const glyph of box.querySelectorAll("mjx-c")) glyph.setAttribute("aria-hidden", "true");
      for (const mathml of box.querySelectorAll("mjx-assistive-mml")) mathml.remove();
    }
  };
  window.addEventListener("load", () => window.MathJax?.startup?.promise?.then(open));
})();
