// The bets that the reader has placed in this browser: name: { title, bet, truth }, truth null until a
// page has shown it. Where nothing can be stored, a bet lasts as long as its page.

import { erase, plain, read, setAside, write } from "./storage.js";

const KEY = "dpo-book-bets";
const VERSION = 1;

const isValue = (value) => [value].flat().every((part) => ["number", "string"].includes(typeof part));

// A bet as it is kept, or null where it is none.
export function betOf(entry) {
  if (!plain(entry)) return null;
  const { title, bet, truth } = entry;
  return typeof title === "string" && isValue(bet) && (truth === null || isValue(truth)) ? { title, bet, truth } : null;
}

// All bets, and whether that is all that stands there.
function look() {
  const kept = read(KEY);
  const readable = kept?.version === VERSION && plain(kept.bets);
  const stored = Object.entries(readable ? kept.bets : {});
  const bets = stored.map(([name, entry]) => [name, betOf(entry)]).filter(([, bet]) => bet);
  return { bets: Object.fromEntries(bets), whole: kept === null || (readable && bets.length === stored.length) };
}

export const allBets = () => look().bets;

// Says whether they are kept now.
export const keepBets = (bets) =>
  (look().whole || setAside(KEY)) && write(KEY, Object.keys(bets).length ? { version: VERSION, bets } : null);

export const eraseBets = () => erase(KEY);

export function keptBet(name) {
  const bets = allBets();
  return Object.hasOwn(bets, name) ? bets[name] : null;
}

export const keepBet = (name, entry) => keepBets({ ...allBets(), [name]: entry });

export function forgetBet(name) {
  const { [name]: _, ...others } = allBets();
  keepBets(others);
}
