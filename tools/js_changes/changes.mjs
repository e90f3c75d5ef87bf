// Every change that Stryker's mutators make of a module, as JSON: [line, column, what, text of the module so
// changed]. Run by tools/stryker.py: node changes.mjs FILE

import { readFileSync } from "node:fs";
import { parse } from "@babel/parser";
import { Instrumenter } from "@stryker-mutator/instrumenter";

const [file] = process.argv.slice(2);
const source = readFileSync(file, "utf8");
const starts = [0];
for (const line of source.split("\n")) starts.push(starts.at(-1) + line.length + 1);

const still = { debug() {}, info() {}, warn() {}, isDebugEnabled: () => false };
const options = { plugins: null, excludedMutations: [], ignorers: [] };
const { mutants } = await new Instrumenter(still).instrument([{ name: file, content: source, mutate: true }], options);

const parses = (text) => {
  try {
    return Boolean(parse(text, { sourceType: "module" }));
  } catch {
    return false;
  }
};

const changes = mutants.map(({ location: { start, end }, mutatorName, replacement }) => {
  const [from, to] = [start, end].map(({ line, column }) => starts[line] + column);
  const put = (text) => source.slice(0, from) + text + source.slice(to);
  // In brackets, as `a || b` in the place of one factor, where it is an expression.
  const changed = [`(${replacement})`, replacement].map(put).find((text, i) => (i || mutatorName !== "BlockStatement") && parses(text));
  if (!changed) throw new Error(`${file}:${start.line + 1}: ${replacement} does not fit in`);
  const short = (text) => text.replace(/\s+/g, " ").slice(0, 60);
  return [start.line + 1, start.column + 1, `${short(source.slice(from, to))} → ${short(replacement)}`, changed];
});
process.stdout.write(JSON.stringify(changes));
