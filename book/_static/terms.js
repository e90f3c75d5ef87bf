// Definitions of the glossary's terms, shown where the terms stand: on pointing, on focus, on a
// tap. A second tap, a click or Enter follows the link to the glossary; Escape closes.
(() => {
  const tips = document.querySelector(".dpo-tips");
  const links = document.querySelectorAll("a.dpo-term");
  if (!tips || !links.length) return;

  const GAP = 6; // between a term and its definition, and to the edges of the window
  let link = null; // whose definition is shown
  let tip = null;
  let line = null; // the point that was pointed at: a term may run over two lines
  let timer;

  for (const one of tips.children) one.hidden = true;
  document.body.append(tips); // no box of the page may clip a definition
  tips.hidden = false;

  function place() {
    const lines = [...link.getClientRects()];
    const at = lines.find((r) => line && line.y >= r.top && line.y <= r.bottom) ?? lines[0];
    if (!at || at.bottom < 0 || at.top > innerHeight) return hide();
    const width = document.documentElement.clientWidth;
    const left = Math.min(at.left, width - tip.offsetWidth - GAP);
    const above = at.top - tip.offsetHeight - GAP;
    const below = at.bottom + GAP;
    const fits = below + tip.offsetHeight <= innerHeight || above < 0;
    tip.style.left = `${Math.max(GAP, left)}px`;
    tip.style.top = `${fits ? below : above}px`;
  }

  function show(target, point = null) {
    clearTimeout(timer);
    if (link === target) return;
    hide();
    tip = document.getElementById(target.getAttribute("aria-describedby"));
    if (!tip) return;
    link = target;
    line = point;
    tip.hidden = false;
    place();
  }

  function hide() {
    clearTimeout(timer);
    if (tip) tip.hidden = true;
    link = tip = line = null;
  }

  function soon(act, delay) {
    clearTimeout(timer);
    timer = setTimeout(act, delay);
  }

  for (const one of links) {
    let shown = false; // before the finger came down
    one.addEventListener("pointerenter", (e) => {
      if (e.pointerType === "touch") return;
      const point = { y: e.clientY };
      if (link === one) clearTimeout(timer);
      else soon(() => show(one, point), 150);
    });
    one.addEventListener("pointerleave", (e) => {
      if (e.pointerType === "touch") return;
      if (link) soon(hide, 300);
      else clearTimeout(timer);
    });
    one.addEventListener("pointerdown", () => (shown = link === one));
    one.addEventListener("focus", () => show(one));
    one.addEventListener("blur", hide);
    one.addEventListener("click", (e) => {
      tips.classList.toggle("dpo-by-touch", e.pointerType === "touch");
      if (e.pointerType !== "touch" || shown) return;
      e.preventDefault();
      show(one, { y: e.clientY });
      place();
    });
  }

  // A reader may move the pointer onto the definition, to select from it or to magnify it.
  tips.addEventListener("pointerenter", () => clearTimeout(timer), true);
  tips.addEventListener("pointerleave", (e) => {
    if (e.target === tip && e.pointerType !== "touch") soon(hide, 300);
  }, true);

  document.addEventListener("keydown", (e) => {
    if (e.key === "Escape" && link) hide();
  });
  document.addEventListener("pointerdown", (e) => {
    if (link && !link.contains(e.target) && !tip.contains(e.target)) hide();
  });
  addEventListener("scroll", () => link && place(), { passive: true, capture: true });
  addEventListener("resize", hide);
})();
