// The bets that the reader has placed in this browser: name: { title, bet, truth }, truth null until a
// page has shown it. Where nothing can be stored, a bet lasts as long as its page.

const KEY = "dpo-book-bets";
const VERSION = 1;
const plain = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

export function allBets() {
  try {
    const kept = JSON.parse(localStorage.getItem(KEY));
    if (kept?.version === VERSION && plain(kept.bets)) return kept.bets;
  } catch {
    // no storage, or not what we wrote
  }
  return {};
}

function store(bets) {
  try {
    if (Object.keys(bets).length) localStorage.setItem(KEY, JSON.stringify({ version: VERSION, bets }));
    else localStorage.removeItem(KEY);
  } catch {
    // a browser that keeps nothing: the page works without
  }
}

export function keptBet(name) {
  const bets = allBets();
  return Object.hasOwn(bets, name) && plain(bets[name]) ? bets[name] : null;
}

export const keepBet = (name, entry) => store({ ...allBets(), [name]: entry });

export function forgetBet(name) {
  const { [name]: _, ...others } = allBets();
  store(others);
}
