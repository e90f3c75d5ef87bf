// Wide drawings and equations scroll in a box of their own: let the keyboard reach such a box
// when, and only when, there is something to scroll. (The theme does this for code and tables.)
(() => {
  const update = () => {
    for (const box of document.querySelectorAll(".dpo-figure, div.math")) {
      if (box.scrollWidth > box.clientWidth + 1) box.tabIndex = 0;
      else box.removeAttribute("tabindex");
    }
  };
  let timer;
  window.addEventListener("resize", () => {
    clearTimeout(timer);
    timer = setTimeout(update, 200);
  });
  window.addEventListener("load", () => {
    update();
    window.MathJax?.startup?.promise?.then(update);
  });
})();
