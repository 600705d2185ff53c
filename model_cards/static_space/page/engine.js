// Copyright 2026 The DenseCLIP for Transformers authors.
// SPDX-License-Identifier: Apache-2.0
/** What computes: onnxruntime-web, by WebGPU where that works, or else by WebAssembly. */

import { addressOf, fetchFile } from "./files.js";

const MAXIMUM_THREADS = 8;  // more do not help a picture
// How far WebGPU may be off, as a share of the deviation of the logits. Drivers with faults are far beyond.
const TOLERANCE = 0.01;

const firstLine = (error) => String(error?.message ?? error).split("\n")[0].slice(0, 200);

/** The pattern of training/publishing/static_space.py, for which it has written down some logits: smooth, in [-1, 1]. */
export const pattern = (height, width) => {
  const values = new Float32Array(3 * height * width);
  for (let channel = 0, at = 0; channel < 3; channel++) {
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++, at++) values[at] = Math.sin(0.11 * x + 0.07 * y * (channel + 1));
    }
  }
  return values;
};

/** A model in one of the runtimes of `settings.runtimes`. */
class Engine {
  constructor(ort, session, name) {
    Object.assign(this, { ort, session, name });
  }

  static async open(name, settings, report) {
    const runtime = settings.runtimes[name], model = settings.models[runtime.model];
    let loaded = 0;
    const count = (length) => {
      loaded += length;
      report(loaded, runtime.binary.bytes + model.bytes);
    };
    count(0);
    const binary = await fetchFile(runtime.binary, count), weights = await fetchFile(model, count);
    const ort = await import(addressOf(runtime.script));
    ort.env.logLevel = "error";
    ort.env.wasm.wasmBinary = binary;
    ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency, MAXIMUM_THREADS) : 1;
    const session = await ort.InferenceSession.create(weights, { executionProviders: [name],
      logSeverityLevel: 3 });  // errors alone
    return new Engine(ort, session, name);
  }

  /** (3, height, width) -> `logits` of shape (numLabels, rows, columns) */
  async run(values, height, width) {
    const input = new this.ort.Tensor("float32", values, [1, 3, height, width]);
    const output = Object.values(await this.session.run({ pixel_values: input }))[0];
    const [, numLabels, rows, columns] = output.dims, logits = output.data;
    return { logits, numLabels, rows, columns };
  }

  /** Compare it with what onnxruntime made of [`pattern`] where the page was written. */
  async check({ height, width, places, logits, deviation }) {
    const found = (await this.run(pattern(height, width), height, width)).logits;
    // Not `>`, which NaN would pass.
    const isRight = places.every((place, index) => Math.abs(found[place] - logits[index]) <= TOLERANCE * deviation);
    if (!isRight) throw new Error("its results are wrong on this device");
  }
}

const openWebGPU = async (settings, report) => {
  const engine = await Engine.open("webgpu", settings, report);
  await engine.check(settings.check);
  return engine;
};

/**
 * The fastest engine that works.
 *
 * @param {?string} reason why there is no WebGPU, where that is known already
 * @returns {Promise<{engine: Engine, words: string}>} with what to say of it
 */
export const openEngine = async (settings, report, reason = null) => {
  if (reason === null && await navigator.gpu?.requestAdapter().catch(() => null)) {
    try {
      return { engine: await openWebGPU(settings, report), words: "on the graphics processor (WebGPU)" };
    } catch (error) {
      reason = `WebGPU does not work here: ${firstLine(error)}`;
    }
  }
  const engine = await Engine.open("wasm", settings, report), { numThreads } = engine.ort.env.wasm;
  const threads = numThreads === 1 ? "one thread" : `${numThreads} threads`;
  const integers = settings.runtimes.wasm.model === "int8" ? ", integers of 8 bits" : "";
  return { engine, words: `on the processor (WebAssembly, ${threads}${integers})${reason ? `. ${reason}` : ""}` };
};

export { firstLine };
