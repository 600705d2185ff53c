// Copyright 2026 The DenseCLIP for Transformers authors.
// SPDX-License-Identifier: Apache-2.0
/** The page: what visitors choose goes to the worker, and what it finds to the viewer that `denseclip web` has too. */

import settings from "./settings.js";
import { startViewer } from "./viewer.js";

const find = (selector) => document.querySelector(selector);
const input = find("#upload input"), chosen = find("#upload .chosen"), status = find("#status");
const bar = find("#status progress");
const megabytes = (bytes) => (bytes / 1e6).toFixed(0);

// Gradio calls what the viewer watches when its value changes; here that is `show`.
const props = { value: null, hint: settings.hint };
let viewerShows = () => {}, mask = null;
const show = (value) => {
  if (mask) URL.revokeObjectURL(mask);
  mask = value?.mask ? URL.createObjectURL(value.mask) : null;
  props.value = mask ? { ...value, mask } : value;
  viewerShows();
};
startViewer(find("#classes"), props, (_, callback) => { viewerShows = callback; });

/**
 * Say what goes on; of `part`, from 0 to 1, a bar is shown, and of work of which the end is not known a moving one.
 * `amount` changes so often that it is not read aloud.
 */
const say = (words, part = null, isBusy = part !== null, amount = "") => {
  const place = find("#status .words");
  place.classList.remove("late");
  if (place.textContent !== words) place.textContent = words;
  find("#status .amount").textContent = amount;
  bar.hidden = !isBusy;
  if (part === null) bar.removeAttribute("value");
  else bar.value = part;
};

// `turn` tells a late answer from the newest.
let worker = null, turn = 0, isReady = false, ready = "", current = null;

const handlers = {
  loading: ({ loaded, total }) => {
    isReady = false;
    if (loaded < total) {
      say("Loading the model", loaded / total, true, `${megabytes(loaded)} of ${megabytes(total)} MB`);
    } else {
      say("Starting the model", null, true);
    }
  },
  ready: ({ words, name }) => {
    isReady = true;
    ready = `The model runs in this browser, ${words}.`;
    status.dataset.engine = name;
    if (current) say("Segmenting", null, true);
    else say(ready);
  },
  window: ({ number, total }) => say("Segmenting", (number - 1) / total, true, `window ${number} of ${total}`),
  shown: (message) => finish(message, message.value),
  refused: (message) => finish(message, { error: message.words }),
  broken: (message) => {
    finish(message, { error: message.words });
    start();
    if (current) worker.postMessage({ file: current, turn });  // which was chosen meanwhile
  },
  failed: ({ words }) => {
    worker.terminate();
    worker = current = null;
    say(words);
    status.dataset.state = "failed";
    show({ error: words });
  },
};

const finish = (message, value) => {
  if (message.turn !== turn) return;
  current = null;
  say(ready);
  show(value);
};

const start = () => {
  worker?.terminate();
  isReady = false;
  worker = new Worker(new URL(`./worker.js${location.search}`, import.meta.url), { type: "module" });
  worker.addEventListener("message", ({ data }) => handlers[data.kind](data));
  worker.addEventListener("error", (event) => handlers.failed({
    words: `The part of this page that computes could not be started: ${event.message ?? "a script is missing"}. Load`
      + " this page again." }));
};

const choose = (file) => {
  if (!file || !worker) return;
  chosen.hidden = false;
  chosen.querySelector(".name").textContent = file.name;
  show(null);
  current = file;
  worker.postMessage({ file, turn: ++turn });
  if (isReady) say("Segmenting", null, true);
};

const clear = () => {
  turn++;
  current = null;
  chosen.hidden = true;
  show(null);
  if (isReady) say(ready);
  input.focus();
};

input.addEventListener("change", () => {
  choose(input.files[0]);
  input.value = "";  // so that the same file can be chosen again
});
find("#upload button").addEventListener("click", clear);
for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();  // a browser would leave the page for the photograph
    find("#upload").classList.toggle("over", name === "dragenter" || name === "dragover");
    if (name === "drop") choose(event.dataTransfer.files[0]);
  });
}
document.addEventListener("paste", (event) => choose(event.clipboardData.files[0]));

const lacks = Object.entries({
  WebAssembly: "WebAssembly" in window, OffscreenCanvas: "OffscreenCanvas" in window,
  CompressionStream: "CompressionStream" in window,
}).filter(([, isThere]) => !isThere).map(([name]) => name);
if (lacks.length > 0) {
  const words = `This browser is too old for this page: it lacks ${lacks.join(", ")}. Update it, or take another one.`;
  say(words);
  show({ error: words });
} else {
  start();
  navigator.serviceWorker?.register(new URL("../service-worker.js", import.meta.url)).catch(() => {});
}
