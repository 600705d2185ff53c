// Copyright 2026 The DenseCLIP for Transformers authors.
// SPDX-License-Identifier: Apache-2.0
/**
 * From logits to the class of each pixel, probabilities and heat maps: what
 * modeling_denseclip/class_maps_denseclip.py and modeling_denseclip/tools/page/answers.py make of them.
 *
 * Logits are enlarged bilinearly. They are read in rows, from top to bottom, so that of sliding windows, whose logits
 * have the size of the prepared picture, no more than two rows are in memory at a time. Between four logits most classes
 * are beaten: one that another one beats at all four corners is beaten everywhere between, and is left out.
 */

// What a probability in steps of 1 / 255 does not see: classes that all together have less than half a step.
const negligible = (numLabels) => Math.log(2 * 255 * numLabels);
// A class counts as beaten only by more than its interpolation may round.
const LEAST_LEAD = 1e-6;

/**
 * Where pixels fall among logits, along one axis: the logits on both sides, the weight of the upper one, and the first
 * pixel of each cell between two logits, with one entry more than there are cells.
 */
export const axisPositions = (length, numLogits) => {
  const lower = new Int32Array(length), upper = new Int32Array(length), weight = new Float64Array(length);
  const starts = new Int32Array(numLogits + 1).fill(length);
  for (let pixel = length - 1; pixel >= 0; pixel--) {
    const position = Math.min(Math.max((pixel + 0.5) * numLogits / length - 0.5, 0), numLogits - 1);
    lower[pixel] = Math.floor(position);
    upper[pixel] = Math.min(lower[pixel] + 1, numLogits - 1);
    weight[pixel] = position - lower[pixel];
    starts[lower[pixel]] = pixel;
  }
  for (let cell = numLogits - 1; cell >= 0; cell--) starts[cell] = Math.min(starts[cell], starts[cell + 1]);
  return { lower, upper, weight, starts };
};

/** (numLabels, height, width) -> (height, width, numLabels), so that the logits of a pixel lie side by side. */
const classesLast = (logits, numLabels) => {
  const positions = logits.length / numLabels, result = new Float32Array(logits.length);
  for (let label = 0, from = 0; label < numLabels; label++) {
    for (let position = 0, at = label; position < positions; position++, from++, at += numLabels) {
      result[at] = logits[from];
    }
  }
  return result;
};

/** Whether all logits are finite. Others have no greatest one. */
export const areFinite = (logits) => {
  for (let index = 0; index < logits.length; index++) {
    if (!Number.isFinite(logits[index])) return false;
  }
  return true;
};

/**
 * Logits as rows: `read(y)` is the row y, a Float32Array of shape (width, numLabels). Rows are kept for the next call.
 */
class Rows {
  constructor(numLabels, height, width, make) {
    Object.assign(this, { numLabels, height, width, make, kept: new Map() });
  }

  read(y) {
    const row = this.kept.get(y) ?? this.make(y);
    for (const other of this.kept.keys()) if (other < y - 1 || other > y) this.kept.delete(other);
    return this.kept.set(y, row).get(y);
  }
}

/** Of a whole picture: `logits` of shape (numLabels, height, width). */
export const wholeRows = (logits, numLabels, height, width) => {
  const values = classesLast(logits, numLabels), length = width * numLabels;
  return new Rows(numLabels, height, width, (y) => values.subarray(y * length, (y + 1) * length));
};

/**
 * Of sliding windows over a picture of this height and width: the mean of all windows that see a pixel.
 *
 * @param {object[]} windows each with `top`, `left`, `height` and `width` in pixels, and `logits` of shape
 *   (numLabels, rows, columns)
 */
export const windowRows = (windows, numLabels, height, width) => {
  const parts = windows.map((window) => ({ ...window, values: classesLast(window.logits, numLabels),
    down: axisPositions(window.height, window.rows), across: axisPositions(window.width, window.columns) }));
  const make = (y) => {
    const row = new Float32Array(width * numLabels), counts = new Uint16Array(width);
    for (const { top, left, width: windowWidth, height: windowHeight, values, columns, down, across } of parts) {
      if (y < top || y >= top + windowHeight) continue;
      const length = columns * numLabels, mixed = new Float32Array(length), place = y - top;
      const above = down.lower[place] * length, below = down.upper[place] * length, weight = down.weight[place];
      for (let at = 0; at < length; at++) {
        mixed[at] = values[above + at] + (values[below + at] - values[above + at]) * weight;
      }
      for (let x = 0, at = left * numLabels; x < windowWidth; x++) {
        const one = across.lower[x] * numLabels, other = across.upper[x] * numLabels, along = across.weight[x];
        counts[left + x]++;
        for (let label = 0; label < numLabels; label++, at++) {
          row[at] += mixed[one + label] + (mixed[other + label] - mixed[one + label]) * along;
        }
      }
    }
    for (let x = 0, at = 0; x < width; x++) {
      for (let label = 0; label < numLabels; label++, at++) row[at] /= counts[x];
    }
    return row;
  };
  return new Rows(numLabels, height, width, make);
};

/** First pixel of each window along one side; the last window ends with the picture. */
export const windowStarts = (length, window, stride) => {
  const starts = [];
  for (let start = 0; start < length - window; start += stride) starts.push(start);
  return [...starts, length - window];
};

/**
 * A row of logits with `winners`, the greatest class at each of them (of equal ones the lowest), and room for
 * [`logSum`].
 */
const examine = (values, numLabels) => {
  const winners = new Int32Array(values.length / numLabels), logSums = new Float64Array(winners.length).fill(NaN);
  for (let position = 0; position < winners.length; position++) {
    const first = position * numLabels;
    let best = 0;
    for (let label = 1; label < numLabels; label++) if (values[first + label] > values[first + best]) best = label;
    winners[position] = best;
  }
  return { values, winners, logSums };
};

/**
 * Visit each cell between four logits that has pixels, with the classes that are not beaten in it by `lead`.
 *
 * @param {function(object): void} visit gets one object, again and again: `classes` and `count`, how many of them
 *   count; unless there is but one class, `corners`, their logits, (4, numLabels), upper left, upper right, lower left,
 *   lower right; `column` of the cell; its pixels, from `top` to `bottom` and `left` to `right`, the latter not
 *   included; and `above` and `below`, the rows of logits as [`examine`] returns them
 */
const visitCells = (source, rows, columns, lead, visit) => {
  const { numLabels, height, width } = source, corners = new Float64Array(4 * numLabels);
  const cell = { classes: new Int32Array(numLabels), corners };
  cell.below = examine(source.read(0), numLabels);
  for (let row = 0; row < height; row++) {
    cell.above = cell.below;
    if (row + 1 < height) cell.below = examine(source.read(row + 1), numLabels);
    [cell.top, cell.bottom] = [rows.starts[row], rows.starts[row + 1]];
    if (cell.top === cell.bottom) continue;
    for (let column = 0; column < width; column++) {
      cell.column = column;
      cell.left = columns.starts[column];
      cell.right = columns.starts[column + 1];
      if (cell.left === cell.right) continue;
      cell.count = gatherCandidates(cell, Math.min(column + 1, width - 1), numLabels, lead);
      visit(cell);
    }
  }
};

/** Write the classes that are not beaten in a cell, and their logits at its corners; returns how many there are. */
const gatherCandidates = ({ classes, corners, above, below, column }, next, numLabels, lead) => {
  const a = above.winners[column], b = above.winners[next], c = below.winners[column], d = below.winners[next];
  if (lead === 0 && a === b && a === c && a === d) {
    classes[0] = a;
    return 1;
  }
  const rivals = [...new Set([a, b, c, d])], least = Math.max(lead, LEAST_LEAD);
  const one = column * numLabels, other = next * numLabels, [upper, lower] = [above.values, below.values];
  let count = 0;
  for (let label = 0; label < numLabels; label++) {
    const aa = upper[one + label], bb = upper[other + label], cc = lower[one + label], dd = lower[other + label];
    let isBeaten = false;
    for (let index = 0; index < rivals.length && !isBeaten; index++) {
      const rival = rivals[index];
      isBeaten = upper[one + rival] - aa > least && upper[other + rival] - bb > least
        && lower[one + rival] - cc > least && lower[other + rival] - dd > least;
    }
    if (isBeaten) continue;
    corners[count] = aa;
    corners[numLabels + count] = bb;
    corners[2 * numLabels + count] = cc;
    corners[3 * numLabels + count] = dd;
    classes[count++] = label;
  }
  return count;
};

/** The logarithm of the sum of exponentials at one logit of a row; `kept` holds those that are known, others are NaN. */
const logSum = (row, position, numLabels, kept) => {
  if (Number.isNaN(kept[position])) {
    const first = position * numLabels;
    let greatest = -Infinity, sum = 0;
    for (let label = 0; label < numLabels; label++) greatest = Math.max(greatest, row[first + label]);
    for (let label = 0; label < numLabels; label++) sum += Math.exp(row[first + label] - greatest);
    kept[position] = greatest + Math.log(sum);
  }
  return kept[position];
};

/**
 * The class of each pixel of a picture, and how many pixels and how much probability each class has.
 *
 * @returns {{ids: (Uint8Array|Uint16Array), pixels: Float64Array, sums: Float64Array}} `sums` of the softmax probability
 *   of the class over its pixels, which is that of the nearest logits
 */
export const classMap = (source, height, width) => {
  const { numLabels } = source, rows = axisPositions(height, source.height);
  const columns = axisPositions(width, source.width);
  const ids = new (numLabels <= 256 ? Uint8Array : Uint16Array)(height * width);
  const pixels = new Float64Array(numLabels), sums = new Float64Array(numLabels);
  const nearest = new Float64Array(4 * numLabels);  // pixels of each class in a cell, by the corner that is nearest
  visitCells(source, rows, columns, 0, (cell) => {
    const { classes, count, corners, top, bottom, left, right } = cell;
    nearest.fill(0, 0, 4 * count);
    for (let y = top; y < bottom; y++) {
      const down = rows.weight[y], isLower = down >= 0.5 ? 2 : 0;
      for (let x = left; x < right; x++) {
        const along = columns.weight[x];
        let best = 0, greatest = -Infinity;
        for (let index = 0; count > 1 && index < count; index++) {
          const one = corners[index] + (corners[2 * numLabels + index] - corners[index]) * down;
          const upper = corners[numLabels + index];
          const other = upper + (corners[3 * numLabels + index] - upper) * down;
          const value = one + (other - one) * along;
          if (value > greatest) [greatest, best] = [value, index];
        }
        ids[y * width + x] = classes[best];
        nearest[4 * best + isLower + (along >= 0.5 ? 1 : 0)]++;
      }
    }
    const next = Math.min(cell.column + 1, source.width - 1);
    for (let index = 0; index < count; index++) {
      for (let corner = 0; corner < 4; corner++) {
        const number = nearest[4 * index + corner], label = classes[index];
        if (number === 0) continue;
        pixels[label] += number;
        const row = corner < 2 ? cell.above : cell.below, position = corner % 2 ? next : cell.column;
        const total = logSum(row.values, position, numLabels, row.logSums);
        sums[label] += number * Math.exp(row.values[position * numLabels + label] - total);
      }
    }
  });
  return { ids, pixels, sums };
};

/**
 * The softmax probability of the best class at each pixel of a picture of this height and width, in 255 steps.
 *
 * From one pixel of a cell to the next a logit grows by the same amount, and its exponential by the same factor.
 */
export const winningProbabilities = (source, height, width) => {
  const { numLabels } = source, rows = axisPositions(height, source.height);
  const columns = axisPositions(width, source.width), result = new Uint8Array(height * width);
  const [lefts, changes, factors, terms] = Array.from({ length: 4 }, () => new Float64Array(numLabels));
  const step = source.width / width;
  visitCells(source, rows, columns, negligible(numLabels), (cell) => {
    const { count, corners } = cell, hasSteps = cell.right - cell.left > 2;
    for (let y = cell.top; y < cell.bottom; y++) {
      const down = rows.weight[y];
      let top = -Infinity;  // no logit of this row of the cell is above it
      for (let index = 0; index < count; index++) {
        const upper = corners[numLabels + index];
        const left = corners[index] + (corners[2 * numLabels + index] - corners[index]) * down;
        const right = upper + (corners[3 * numLabels + index] - upper) * down;
        lefts[index] = left;
        changes[index] = right - left;
        if (hasSteps) factors[index] = Math.exp((right - left) * step);
        top = Math.max(top, left, right);
      }
      for (let x = cell.left; x < cell.right; x++) {
        const along = columns.weight[x];
        // At the borders of the picture pixels are nearer to each other.
        const isStep = hasSteps && x > cell.left && Math.abs(along - columns.weight[x - 1] - step) < 1e-9;
        let greatest = 0, sum = 0;
        for (let index = 0; index < count; index++) {
          const term = isStep ? terms[index] * factors[index] : Math.exp(lefts[index] + changes[index] * along - top);
          terms[index] = term;
          sum += term;
          if (term > greatest) greatest = term;
        }
        result[y * width + x] = sum > 0 ? Math.round(255 * greatest / sum) : 255;  // logits far beyond a model's
      }
    }
  });
  return result;
};

/** The largest (height, width) up to that of the logits of which a map per class is not too much in all. */
export const mapSize = (source, maximumValues) => {
  const scale = Math.min(Math.sqrt(maximumValues / (source.numLabels * source.height * source.width)), 1);
  return [source.height, source.width].map((side) => Math.max(Math.floor(side * scale), 1));
};

/** The softmax probability of each class, in 255 steps: a Uint8Array of shape (numLabels, height, width). */
export const probabilityMaps = (source, height, width) => {
  const { numLabels } = source, rows = axisPositions(height, source.height);
  const columns = axisPositions(width, source.width), result = new Uint8Array(numLabels * height * width);
  const values = new Float64Array(numLabels);
  for (let y = 0; y < height; y++) {
    const above = source.read(rows.lower[y]), below = source.read(rows.upper[y]), down = rows.weight[y];
    for (let x = 0; x < width; x++) {
      const one = columns.lower[x] * numLabels, other = columns.upper[x] * numLabels, along = columns.weight[x];
      let greatest = -Infinity, sum = 0;
      for (let label = 0; label < numLabels; label++) {
        const left = above[one + label] + (below[one + label] - above[one + label]) * down;
        const right = above[other + label] + (below[other + label] - above[other + label]) * down;
        values[label] = left + (right - left) * along;
        if (values[label] > greatest) greatest = values[label];
      }
      for (let label = 0; label < numLabels; label++) sum += values[label] = Math.exp(values[label] - greatest);
      for (let label = 0, at = y * width + x; label < numLabels; label++, at += height * width) {
        result[at] = Math.round(255 * values[label] / sum);
      }
    }
  }
  return result;
};

/** The pixel below the centre of each pixel of a smaller or larger map: ids, (height, width) -> (newHeight, newWidth). */
export const nearestIds = (ids, height, width, newHeight, newWidth) => {
  const places = (length, original) =>
    Int32Array.from({ length }, (_, pixel) => Math.floor((pixel + 0.5) * original / length));
  const result = new Uint16Array(newHeight * newWidth), columns = places(newWidth, width);
  places(newHeight, height).forEach((row, y) => {
    for (let x = 0; x < newWidth; x++) result[y * newWidth + x] = ids[row * width + columns[x]];
  });
  return result;
};
