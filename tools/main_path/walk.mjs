// The reader's main path through the book, by keyboard: label twelve pairs, fit scores to them, write the
// loss, check it, train; on the way the triangle and the token view.
//
//   node walk.mjs firefox PROGRAM ADDRESS     or chrome; ADDRESS is that of the book's folder
//
// Prints as JSON what was seen: times, rewards, answers, and what must stay empty. Firefox is driven over
// WebDriver BiDi, without a driver program of its own.

import puppeteer from "puppeteer-core";

const PAIRS = 12; // and a practice pair
const CODE = ["import math", "", "def dpo_loss(chosen, rejected, ref_chosen, ref_rejected, beta):"];
const LINE = "gap = (chosen - ref_chosen) - (rejected - ref_rejected)";
const RESULT = "return -log_sigmoid(beta * gap)";
const TYPED = "Lima is the capital of Peru.";
const POOR = /do not know|not my problem|\?$/; // answers that nobody would choose

const [name, program, address] = process.argv.slice(2);
const outside = [];
const errors = [];
const started = Date.now();
const browser = await puppeteer.launch({
  browser: name,
  executablePath: program,
  headless: true,
  args: name === "chrome" ? ["--no-sandbox"] : [],
  // Nothing but the book: no look for updates, safe pages or a captive portal.
  extraPrefsFirefox: { "network.captive-portal-service.enabled": false, "network.connectivity-service.enabled": false },
});
const page = await browser.newPage();
page.on("request", (request) => {
  if (!request.url().startsWith(address) && !/^(data|blob):/.test(request.url())) outside.push(request.url());
});
page.on("console", (message) => {
  if (["error", "warn", "warning"].includes(message.type())) errors.push(message.text());
});
page.on("pageerror", (error) => errors.push(String(error)));
// Firefox says what the book's policy refuses where BiDi does not hear it.
await page.evaluateOnNewDocument(() => {
  document.addEventListener("securitypolicyviolation", (event) => console.error(`refused: ${event.effectiveDirective} ${event.blockedURI}`));
});

const open = (path) => page.goto(`${address}${path}`, { waitUntil: "load" });
const widget = (kind) => `[data-dpo-widget=${kind}]`;
// Brings a widget near, as scrolling does, and waits for its code.
async function near(kind) {
  await page.$eval(widget(kind), (node) => node.scrollIntoView());
  await page.waitForSelector(`${widget(kind)}[data-dpo-mounted] .dpo-status`);
}
async function focusButton(kind, words) {
  const found = await page.$$eval(
    `${widget(kind)} button`,
    (all, wanted) => {
      const node = all.find((one) => one.textContent === wanted);
      node?.focus();
      return Boolean(node);
    },
    words,
  );
  if (!found) throw new Error(`no button ${words} in ${kind}`);
}
async function press(kind, words) {
  await focusButton(kind, words);
  await page.keyboard.press("Enter");
}
const said = (kind, start, timeout = 60000) =>
  page.waitForFunction(
    (selector, words) => document.querySelector(selector).textContent.startsWith(words),
    { timeout },
    `${widget(kind)} .dpo-status`,
    start,
  );
const texts = (selector) => page.$$eval(selector, (all) => all.map((node) => node.textContent));
// The texts of these nodes, once they are others than before.
async function changed(selector, before) {
  await page.waitForFunction(
    (chosen, old) => JSON.stringify([...document.querySelectorAll(chosen)].map((node) => node.textContent)) !== old,
    { timeout: 60000 },
    selector,
    JSON.stringify(before),
  );
  return texts(selector);
}
async function selectAll() {
  await page.keyboard.down("Control");
  await page.keyboard.press("a");
  await page.keyboard.up("Control");
}
// [before, now] of the true reward, and of each answer.
async function result(kind) {
  const tiles = await texts(`${widget(kind)} .dpo-tile`);
  const [, numbers] = tiles.find((text) => text.startsWith("true reward")).split("reward");
  const cells = await texts(`${widget(kind)} .dpo-answers td`);
  return {
    reward: numbers.split(" → ").map((text) => Number(text.replace("−", "-"))),
    answers: cells.flatMap((text, i) => (i % 2 ? [] : [[text, cells[i + 1]]])),
  };
}

async function label() {
  await open("notebooks/01_alignment_problem.html");
  await near("annotator");
  await press("annotator", "Start");
  for (let i = 0; i <= PAIRS; i++) {
    await new Promise((resolve) => setTimeout(resolve, 300)); // nobody reads faster
    const [first] = await texts(`${widget("annotator")} .dpo-ann-text > span:first-child`);
    await page.keyboard.press(POOR.test(first) ? "2" : "1");
  }
  await page.waitForFunction((words) => document.querySelector("[data-dpo-widget=annotator] .dpo-tile").textContent.includes(words), {}, String(PAIRS));
}

// What chapter 2 makes of these clicks: its words, and [chosen, rejected, score] by kind of answer.
async function fit() {
  await open("notebooks/02_bradley_terry.html");
  await near("your_clicks");
  await said("your_clicks", `${PAIRS} of your clicks are here`);
  await press("your_clicks", "Fit scores");
  await said("your_clicks", "From");
  const kinds = await texts(`${widget("your_clicks")} tbody th`);
  const cells = await texts(`${widget("your_clicks")} td`);
  return {
    said: (await texts(`${widget("your_clicks")} .dpo-status`))[0],
    kinds: Object.fromEntries(kinds.map((kind, i) => [kind, cells.slice(3 * i, 3 * i + 3).map((text) => Number(text.replace("−", "-")))])),
  };
}

async function write() {
  await open("notebooks/09_dpo_loss.html");
  await near("write_the_loss");
  await page.focus(`${widget("write_the_loss")} textarea`);
  await selectAll();
  for (const line of [...CODE, `    ${LINE}`, `    ${RESULT}`]) {
    await page.keyboard.type(line);
    await page.keyboard.press("Enter");
  }
  await page.keyboard.down("Control");
  await page.keyboard.press("Enter");
  await page.keyboard.up("Control");
  await said("write_the_loss", "All cases are right");
  await press("write_the_loss", "Train");
  await said("write_the_loss", "Trained with your loss");
  return result("write_the_loss");
}

// Chapter 9's triangle, as it was, with its start moved, after a step: the cells of its table.
async function triangle() {
  await near("triangle");
  const cells = `${widget("triangle")} td`;
  const first = await texts(cells);
  await page.focus(`${widget("triangle")} .dpo-triangle`);
  await page.keyboard.press("ArrowUp");
  const moved = await changed(cells, first);
  await press("triangle", "Step");
  return [first, moved, await changed(cells, moved)];
}

// Chapter 10's token view of a response that is typed: its words, and the tokens that it shows.
async function tokens() {
  await near("token_view");
  const field = `${widget("token_view")} .dpo-token-fields label:nth-child(2) input`;
  await page.focus(field);
  await selectAll();
  await page.keyboard.type(TYPED);
  await page.waitForFunction(
    (selector, last) => [...document.querySelectorAll(selector)].some((node) => node.textContent === last) && !document.querySelector(".dpo-token-old"),
    { timeout: 60000 },
    `${widget("token_view")} tbody th`,
    TYPED.split(" ")[0],
  );
  await said("token_view", "One update of the policy would move log π");
  return texts(`${widget("token_view")} .dpo-tokens:first-child tbody th`);
}

async function train() {
  await open("notebooks/10_full_implementation.html");
  const lab = widget("train_it_yourself");
  await near("train_it_yourself");
  for (const [key, wanted] of [["loss", "mine"], ["labels", "my clicks of chapter 1"]]) {
    await page.focus(`${lab} select[id$=${key}]`);
    for (let i = 0; i < 9; i++) {
      const chosen = await page.$eval(`${lab} select[id$=${key}]`, (node) => node.selectedOptions[0].textContent);
      if (chosen.startsWith(wanted)) break;
      await page.keyboard.press("ArrowDown");
    }
  }
  await press("train_it_yourself", "Play");
  await page.waitForFunction(
    (selector) => Number([...document.querySelectorAll(selector)].find((node) => node.textContent.startsWith("updates")).querySelector(".dpo-value").textContent) >= 60,
    { timeout: 60000 },
    `${lab} .dpo-tile`,
  );
  await press("train_it_yourself", "Pause");
  const legend = (await texts(`${lab} .dpo-lab-legend`))[0];
  const [pairs] = (await texts(`${lab} .dpo-tile`)).filter((text) => text.startsWith("pairs"));
  return { legend, pairs: Number(pairs.slice(5)), ...(await result("train_it_yourself")) };
}

try {
  await label();
  const fitted = await fit();
  const written = await write();
  const drawn = await triangle();
  const trained = await train();
  const scored = await tokens();
  const seconds = (Date.now() - started) / 1000;
  console.log(JSON.stringify({ version: await browser.version(), seconds, fitted, written, drawn, trained, scored, outside, errors }));
} finally {
  await browser.close();
}
