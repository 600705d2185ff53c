// Copyright 2026 The DenseCLIP for Transformers authors.
// SPDX-License-Identifier: Apache-2.0
/** Segments one photograph after the other, beside the page, which stays alive. */

import { firstLine, openEngine } from "./engine.js";
import { areFinite, classMap, mapSize, nearestIds, probabilityMaps, wholeRows, windowRows, windowStarts,
  winningProbabilities } from "./maps.js";
import { canvasIsTrue, CHANGED_CANVAS, decodePhotograph, fill, pixelRows, Refusal, TRANSPARENT } from "./pictures.js";
import { encodeMask } from "./png.js";
import { prepare, resizedSize } from "./prepare.js";
import settings from "./settings.js";

const { card, messages } = settings, numLabels = card.class_names.length;
const report = (loaded, total) => self.postMessage({ kind: "loading", loaded, total });
const round = (value) => Math.round(value * 1e6) / 1e6;

/** A model that cannot go on: the page starts another worker. */
class Breakdown extends Error {}

let engine = null, waiting = null, isBusy = false;

const open = async (reason = new URL(self.location).searchParams.has("wasm") ? "" : null) => {
  const found = await openEngine(settings, report, reason);
  engine = found.engine;
  self.postMessage({ kind: "ready", words: found.words, name: engine.name });
};

/** The logits of a part of a picture. WebGPU that fails in the middle is given up for WebAssembly. */
const run = async (values, height, width) => {
  let output;
  try {
    output = await engine.run(values, height, width);
  } catch (error) {
    if (engine.name !== "webgpu") {
      const reason = firstLine(error);
      throw new Breakdown(/alloc|memory|bounds/i.test(reason) ? messages.memory : `The model failed: ${reason}`);
    }
    await open(`WebGPU has failed: ${firstLine(error)}`);
    return run(values, height, width);
  }
  if (output.numLabels !== numLabels) {
    throw new Refusal(`The model has ${output.numLabels} classes, and ${numLabels} names. Write this page anew.`);
  }
  if (!areFinite(output.logits)) throw new Refusal(messages.notFinite);
  return output;
};

/** Rows and columns of a picture, (3, height, width) -> (3, bottom - top, right - left). */
const crop = ({ values, height, width }, top, left, bottom, right) => {
  const part = new Float32Array(3 * (bottom - top) * (right - left));
  for (let channel = 0, at = 0; channel < 3; channel++) {
    for (let y = top; y < bottom; y++, at += right - left) {
      const row = (channel * height + y) * width;
      part.set(values.subarray(row + left, row + right), at);
    }
  }
  return part;
};

/** What `run` of training/run_onnx.py does: a prepared picture -> its logits in rows. */
const compute = async (picture) => {
  const { height, width, values } = picture, { windows } = card;
  if (windows === null || (height <= windows.size[0] && width <= windows.size[1])) {
    const { logits, rows, columns } = await run(values, height, width);
    return wholeRows(logits, numLabels, rows, columns);
  }
  const sides = [height, width].map((side, axis) => Math.min(windows.size[axis], side));
  const [tops, lefts] = [height, width].map((side, axis) => windowStarts(side, sides[axis], windows.stride[axis]));
  const parts = [];
  for (const top of tops) {
    for (const left of lefts) {
      self.postMessage({ kind: "window", number: parts.length + 1, total: tops.length * lefts.length });
      const part = crop(picture, top, left, top + sides[0], left + sides[1]);
      parts.push({ top, left, height: sides[0], width: sides[1], ...(await run(part, ...sides)) });
    }
  }
  return windowRows(parts, numLabels, height, width);
};

/** What `ClassPredictor.list_classes` does: the classes that are there, the largest first. */
const listClasses = (pixels, sums) => {
  const total = pixels.reduce((sum, number) => sum + number, 0);
  return Array.from(pixels, (number, id) => ({ id, label: card.class_names[id], pixels: number,
    area: round(number / total), score: round(sums[id] / number) }))
    .filter((entry) => entry.pixels > 0).sort((one, other) => other.pixels - one.pixels);
};

/** The picture at the size of the page, as an ImageBitmap. */
const shrink = (bitmap, width, height) => {
  const canvas = new OffscreenCanvas(width, height), context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, width, height);
  return canvas.transferToImageBitmap();
};

/** What `segment` and `pack_maps` of answers.py do, for the viewer. */
const segment = async (file) => {
  const { bitmap, hasAlpha } = await decodePhotograph(file, settings), { width, height } = bitmap;
  const [seenHeight, seenWidth] = resizedSize(height, width, card.image_processor.size);
  const least = card.smallest_side;
  if (Math.min(seenHeight, seenWidth) < least) {
    throw new Refusal(fill(messages.tooNarrow, { height, width, seen_height: seenHeight,
      seen_width: seenWidth, least }));
  }
  const source = await compute(prepare(pixelRows(bitmap), card.image_processor));
  const scale = settings.viewSide / Math.max(width, height);
  const [viewWidth, viewHeight] = [width, height].map((side) => Math.max(Math.round(side * scale), 1));
  const photo = shrink(bitmap, viewWidth, viewHeight);
  bitmap.close();
  const { ids, pixels, sums } = classMap(source, height, width), classes = listClasses(pixels, sums);
  const [mapHeight, mapWidth] = mapSize(source, settings.maximumMapValues);
  const remarks = new Map(classes.map(({ id, score }) => [id, `mean probability ${(100 * score).toFixed(1)} %`]));
  return {
    width: viewWidth, height: viewHeight, map_width: mapWidth, map_height: mapHeight, limits: [0, 1], photo,
    mask: await encodeMask(ids, height, width, card.palette),
    ids: nearestIds(ids, height, width, viewHeight, viewWidth),
    scores: winningProbabilities(source, viewHeight, viewWidth),
    maps: probabilityMaps(source, mapHeight, mapWidth),
    classes: card.class_names.map((name, id) => ({ id, name, color: card.palette[id],
      area: pixels[id] / (width * height), remark: remarks.get(id) ?? "" })),
    title: `${classes.length} ${classes.length === 1 ? "class" : "classes"} found`,
    view: "Classes", note: hasAlpha ? TRANSPARENT : "", meaning: settings.meaning, percent: true,
    details: { model: settings.name, height, width, score: settings.scoreMeaning, classes },
  };
};

const answer = async ({ file, turn }) => {
  try {
    if (!canvasIsTrue()) throw new Refusal(CHANGED_CANVAS);
    const value = await segment(file);
    self.postMessage({ kind: "shown", turn, value },
      [value.photo, value.ids.buffer, value.scores.buffer, value.maps.buffer]);
  } catch (error) {
    const isKnown = error instanceof Refusal || error instanceof Breakdown, reason = firstLine(error);
    const words = isKnown ? error.message
      : error instanceof RangeError ? messages.memory : `This photograph could not be segmented: ${reason}`;
    self.postMessage({ kind: error instanceof Breakdown ? "broken" : "refused", turn, words });
  }
};

const work = async () => {
  isBusy = true;
  while (waiting) {
    const question = waiting;
    waiting = null;
    await answer(question);
  }
  isBusy = false;
};

self.addEventListener("message", ({ data }) => {
  waiting = data;  // the newest alone is answered
  if (engine && !isBusy) work();
});

try {
  await open();
  if (waiting && !isBusy) work();
} catch (error) {
  self.postMessage({ kind: "failed", words: error instanceof Refusal ? error.message
    : `The model could not be started: ${firstLine(error)}` });
}
