// The tiny world's tokenizer and its truth, as in dpo_lib/models/tokenizers.py and dpo_lib/world/reward.py.
// Words, prompts, facts and the grammar come from Python; here is only what is done with them.

const ANSWERS = ["capital", "sum", "cause", "list", "support"];
const SUBJECTS = ["country", "a", "effect", "category", "thing"];
const TOKEN = /<\w+>|[A-D]\)|[A-Za-z]+(?:'[a-z]+)?|\d+|\S/g;

export class WordTokenizer {
  constructor(words) {
    Object.assign(this, { words, ids: new Map(words.map((word, id) => [word, id])), eosId: 1 });
  }
  encode(text) {
    const pieces = text.match(TOKEN) ?? [];
    const unknown = pieces.filter((piece) => !this.ids.has(piece));
    if (unknown.length) throw new Error(`words outside the vocabulary: ${unknown.join(" ")}`);
    return pieces.map((piece) => this.ids.get(piece));
  }
  encodeResponse(text) {
    return [...this.encode(text), this.eosId];
  }
  decode(ids) {
    return ids.filter((id) => id > 1).map((id) => this.words[id]).join(" ").replace(/ (?=[.,?!:](?: |$))/g, "");
  }
}

// world: { prompts: { text: [family, facts] }, grammar: [[kind, pattern]], members, counts, points }
export class Judge {
  constructor({ prompts, grammar, members, counts, points }) {
    Object.assign(this, { prompts, members, counts, points });
    this.grammar = grammar.map(([kind, pattern]) => [kind, new RegExp(`^(?:${pattern})$`)]);
  }

  // What the truth says of any response to any prompt; its kind: right, wrong, no answer, rude or malformed.
  judge(prompt, response, finished = true) {
    const { points } = this;
    const [family, facts] = this.prompts[prompt] ?? [];
    const goesOn = family && !".?".includes(prompt.at(-1)); // the response finishes the prompt's sentence
    const text = goesOn ? `${prompt} ${response}` : response;
    const sentences = [...text.matchAll(/[^.?]+[.?]?|[.?]/g)].map(([part]) => part.trim());
    const parsed = sentences.map((sentence) => this.parse(sentence));
    if (!finished || !parsed.length || parsed.includes(null)) {
      return { reward: points.MALFORMED, correct: false, malformed: true, kind: "malformed" };
    }
    const answers = parsed.filter(({ kind }) => ANSWERS.includes(kind));
    const correct = answers.length > 0 && answers.every((answer) => this.isRight(family, facts, answer));
    const said = (kind) => parsed.some((part) => part.kind === kind);
    const kindness = family === "support" ? "apology" : "thanks";
    const useful = [...ANSWERS, kindness, "rude"];
    let reward = !answers.length ? points.NO_ANSWER : correct ? points.RIGHT : points.WRONG;
    if (correct && answers.some(({ claims }) => SUBJECTS.some((name) => name in claims))) reward += points.NAMES_THE_SUBJECT;
    if (said(kindness)) reward += points[kindness.toUpperCase()];
    reward += points.FILLER * new Set(sentences.filter((_, i) => !useful.includes(parsed[i].kind))).size;
    if (said("rude")) reward += points.RUDE;
    reward += points.REPEATED * (sentences.length - new Set(sentences).size);
    const kind = said("rude") ? "rude" : !answers.length ? "no answer" : correct ? "right" : "wrong";
    return { reward, correct, malformed: false, kind };
  }

  parse(sentence) {
    const [kind, pattern] = this.grammar.find(([, pattern]) => pattern.test(sentence)) ?? [];
    if (!kind) return null;
    const claims = Object.entries(pattern.exec(sentence).groups ?? {}).filter(([, claim]) => claim !== undefined);
    return { kind, claims: Object.fromEntries(claims) };
  }

  // Whether an answer is of the kind asked for and claims only what is so.
  isRight(family, facts, { kind, claims }) {
    if (family !== kind) return false;
    if (kind !== "list") return Object.entries(claims).every(([name, claim]) => facts[name] === claim);
    const items = claims.items.split(/, | and /);
    return (
      (claims.count ?? facts.count).toLowerCase() === facts.count &&
      (claims.category ?? facts.category) === facts.category &&
      items.length === new Set(items).size &&
      items.length === this.counts[facts.count] &&
      items.every((item) => this.members[facts.category].includes(item))
    );
  }
}
