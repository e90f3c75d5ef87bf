// Every chapter: a few questions, each with one right answer; every other one says what is wrong with it.

import { done, markDone } from "../progress.js";
import { assign, button, h, rich } from "../ui.js";

let groups = 0; // names of radio buttons, unique on the page

export function render({ model, el, spec }) {
  const { chapter, questions } = spec.data;
  const put = (name, i, value) => model.get(name).map((old, k) => (k === i ? value : old));

  const built = questions.map(({ question, answers, right }, i) => {
    const name = `${chapter}.${i + 1}`;
    const group = `dpo-quiz-${++groups}`;
    const pick = (place) =>
      assign(model, { picked: put("picked", i, place), verdicts: put("verdicts", i, "") });
    const check = () => {
      const place = model.get("picked")[i];
      if (place < 0) return;
      markDone("quiz", name);
      assign(model, { verdicts: put("verdicts", i, place === right ? "right" : "wrong") });
    };
    const options = answers.map(([text], place) => {
      const input = h("input", { type: "radio", name: group });
      input.addEventListener("change", () => pick(place));
      input.addEventListener("keydown", (event) => {
        if (event.key.startsWith("Arrow")) event.stopPropagation(); // arrows turn pages of the book
        if (event.key !== "Enter") return;
        event.preventDefault();
        event.stopPropagation();
        check();
      });
      return { input, node: h("label", {}, input, h("span", {}, ...rich(text))) };
    });
    const said = h("span", { "aria-live": "polite" });
    // Unseen: every explanation, so that none of them moves the page.
    const room = answers.map(([, why]) => h("span", { class: "dpo-check-room", "aria-hidden": "true" }, "Not quite. ", ...rich(why)));
    const why = h("p", { class: "dpo-check-why" }, said, ...room);
    const before = `quiz ${name}` in done() ? h("span", { class: "dpo-name" }, " (answered before)") : "";
    const checkButton = button("Check", check);
    checkButton.setAttribute("aria-label", `Check question ${i + 1}`);
    el.append(
      h(
        "fieldset",
        { class: "dpo-check" },
        h("legend", {}, `${i + 1}. `, ...rich(question), before),
        ...options.map(({ node }) => node),
        h("div", { class: "dpo-actions" }, checkButton),
        why,
      ),
    );
    return { options, said, why, checkButton, answers };
  });

  return {
    update({ picked, verdicts }) {
      built.forEach(({ options, said, why, checkButton, answers }, i) => {
        options.forEach(({ input }, place) => (input.checked = picked[i] === place));
        checkButton.setAttribute("aria-disabled", String(picked[i] < 0));
        if (why.dataset.verdict === verdicts[i] && why.dataset.picked === String(picked[i])) return;
        Object.assign(why.dataset, { verdict: verdicts[i], picked: picked[i] });
        const words = { right: "Right. ", wrong: "Not quite. " }[verdicts[i]];
        said.replaceChildren(...(words ? [h("b", {}, words), ...rich(answers[picked[i]][1])] : []));
      });
    },
    describe({ verdicts }) {
      const given = verdicts.filter(Boolean).length;
      const right = verdicts.filter((verdict) => verdict === "right").length;
      if (!given) return `${verdicts.length} questions. Pick an answer, then press Check.`;
      return `${given} of ${verdicts.length} answered, ${right} right.`;
    },
  };
}
