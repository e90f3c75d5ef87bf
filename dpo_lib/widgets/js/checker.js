// The page's side of exercises: one question at a time to a worker that holds Python and the checker.

import { STOPPED, part } from "./live_model.js";

const TOO_LONG = 8000; // ms without an answer: surely a loop without end

export function checker(model) {
  let worker = null;
  let stop = () => {};

  async function start() {
    const [{ engine, diagnosis }, python] = [await part(model, "exercises"), await part(model, "python")];
    const url = URL.createObjectURL(new Blob([engine], { type: "text/javascript" }));
    worker = new Worker(url);
    URL.revokeObjectURL(url);
    return { diagnosis, ...python };
  }
  // [right, words, wrong] for the reader's code, or an error.
  async function check(code, number) {
    const { sheets } = await part(model, "exercises");
    const first = worker ? {} : await start();
    return new Promise((resolve, reject) => {
      let timer = 0;
      const end = (settle, value) => {
        clearTimeout(timer);
        settle(value);
      };
      stop = (words = STOPPED) => {
        worker?.terminate();
        worker = null;
        end(reject, new Error(words));
      };
      const begin = () => (timer = setTimeout(stop, TOO_LONG, "Stopped: your code did not end. Is there a loop without end in it?"));
      if (!("source" in first)) begin(); // else when Python is there
      worker.onmessage = ({ data }) => {
        if (data.ready) begin();
        else if ("error" in data) end(reject, new Error(data.error));
        else end(resolve, data.answer);
      };
      worker.postMessage({ ...first, code, sheet: sheets[number] });
    });
  }
  return { check, stop: (words) => stop(words) };
}
