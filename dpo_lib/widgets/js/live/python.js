// Python in the worker: MicroPython, what its math lacks, and a loss that the reader wrote in it.

const NAME = "dpo_loss";
const ONCE = `import sys, math
_builtin = math
class _Math:
    def log1p(self, x):
        u = 1.0 + x
        return x if u == 1.0 else _builtin.log(u) * x / (u - 1.0)
    def __getattr__(self, name):
        return getattr(_builtin, name)
sys.modules["math"] = _Math()
`;
export const HELPERS = `import math
def log_sigmoid(x):
    return min(x, 0.0) - math.log1p(math.exp(-abs(x)))
def sigmoid(x):
    return math.exp(log_sigmoid(x))
`;
const EACH_TIME = `${NAME} = None\n${HELPERS}`;
const OWN = ["__getattr__", "log1p", "log_sigmoid", "sigmoid"];

// "Line 4: NameError: …" of a traceback: the last line in it that the reader wrote.
function inWords(message) {
  const frames = [...message.matchAll(/line (\d+)(?:, in (\S+))?/g)].filter(([, , name]) => !OWN.includes(name));
  const said = message.trim().split("\n").at(-1);
  return frames.length ? `Line ${frames.at(-1)[1]}: ${said}` : said;
}

// Starts the interpreter; `guarded` turns what a run raises into words with the reader's line.
export async function loadPython(source, wasm) {
  const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  const { loadMicroPython } = await import(url);
  const python = await loadMicroPython({ url: `data:application/wasm;base64,${wasm}` });
  python.runPython(ONCE);
  const guarded = (run) => {
    try {
      return run();
    } catch (error) {
      throw new Error(inWords(error.message));
    }
  };
  return { python, guarded };
}

// Returns a function that runs the reader's code and gives its loss as a function of numbers.
export async function startPython(source, wasm) {
  const { python, guarded } = await loadPython(source, wasm);
  return (code) => {
    python.runPython(EACH_TIME);
    guarded(() => python.runPython(code));
    const loss = python.globals.get(NAME);
    if (typeof loss !== "function") throw new Error(`There is no function ${NAME} in the code.`);
    return (...numbers) => {
      const value = guarded(() => loss(...numbers));
      if (typeof value !== "number") throw new Error(`${NAME} gave ${value ?? "None"}, not a number: is a return missing?`);
      return value;
    };
  };
}
