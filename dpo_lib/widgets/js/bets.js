// The bets that the reader has placed in this browser: name: { title, bet, truth }, truth null until a
// page has shown it. Where nothing can be stored, a bet lasts as long as its page.

import { plain, read, write } from "./storage.js";

const KEY = "dpo-book-bets";
const VERSION = 1;

export function allBets() {
  const kept = read(KEY);
  const bets = kept?.version === VERSION && plain(kept.bets) ? kept.bets : {};
  return Object.fromEntries(Object.entries(bets).filter(([, entry]) => plain(entry)));
}

export const keepBets = (bets) => write(KEY, Object.keys(bets).length ? { version: VERSION, bets } : null);

export function keptBet(name) {
  const bets = allBets();
  return Object.hasOwn(bets, name) ? bets[name] : null;
}

export const keepBet = (name, entry) => keepBets({ ...allBets(), [name]: entry });

export function forgetBet(name) {
  const { [name]: _, ...others } = allBets();
  keepBets(others);
}
