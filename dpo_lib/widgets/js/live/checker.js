// Exercises in the page: the reader's code, judged by the library's own checker, which is Python too.

import { HELPERS, loadPython } from "./python.js";

const HARNESS = `import io, json, sys
def _line(error):
    out = io.StringIO()
    sys.print_exception(error, out)
    lines = [text.split(", line ")[1].split(",")[0].strip() for text in out.getvalue().split("\\n") if '"yours", line ' in text]
    return f" (line {lines[-1]})" if lines else ""
def _call(function, arguments):
    try:
        return function(*arguments)
    except Exception as error:
        raise type(error)(str(error) + _line(error))
def _check(code, sheet):
    sheet = json.loads(sheet)
    space = {"math": math, "sigmoid": sigmoid, "log_sigmoid": log_sigmoid}
    exec(compile(code, "yours", "exec"), space)
    if not callable(space.get(sheet["name"])):
        return json.dumps([False, f"There is no function {sheet['name']} in the code.", []])
    return json.dumps(diagnose(space[sheet["name"]], sheet, _call))
`;

export function start(scope) {
  let check = null;
  scope.onmessage = async ({ data }) => {
    try {
      if (!check) {
        check = await startChecker(data);
        scope.postMessage({ ready: true });
      }
      scope.postMessage({ answer: check(data.code, data.sheet) });
    } catch (error) {
      scope.postMessage({ error: error.message });
    }
  };
}

async function startChecker({ source, wasm, diagnosis }) {
  const { python, guarded } = await loadPython(source, wasm);
  for (const code of [HELPERS, diagnosis, HARNESS]) python.runPython(code);
  const run = python.globals.get("_check");
  return (code, sheet) => guarded(() => JSON.parse(run(code, JSON.stringify(sheet))));
}
