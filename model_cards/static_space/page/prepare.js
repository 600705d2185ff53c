// Copyright 2026 The DenseCLIP for Transformers authors.
// SPDX-License-Identifier: Apache-2.0
/**
 * From a picture to what the model takes: what `prepare` of training/run_onnx.py does, to the last bit of a pixel.
 *
 * Pictures are resized as OpenCV does it bilinearly in integers; see `_resize_bilinear` of
 * modeling_denseclip/image_processing_denseclip.py.
 */

const WEIGHT_BITS = 11;  // OpenCV's, of its integer weights
const { fround } = Math;

/**
 * Height and width after resizing: `resized_size` of modeling_denseclip/sizes_denseclip.py.
 *
 * @param {?object} size `height` and `width`, or `shortest_edge` and perhaps `longest_edge`; null: as it is
 */
export const resizedSize = (height, width, size) => {
  if (size === null) return [height, width];
  if (size.height && size.width) return [size.height, size.width];
  let scale = size.shortest_edge / Math.min(height, width);
  if (size.longest_edge) scale = Math.min(scale, size.longest_edge / Math.max(height, width));
  return [height, width].map((side) => Math.max(Math.floor(side * scale + 0.5), 1));
};

const roundHalfToEven = (value) => {
  const rounded = Math.round(value);
  return rounded - value === 0.5 && rounded % 2 ? rounded - 1 : rounded;
};

/** For each new pixel both old ones, and their weights in 2 ** -11. OpenCV drops the second weight at the sides. */
const neighbours = (newLength, length, dropsAtBorder) => {
  const scale = 1 / (newLength / length);
  const lower = new Int32Array(newLength), upper = new Int32Array(newLength);
  const lowerWeight = new Int32Array(newLength), upperWeight = new Int32Array(newLength);
  for (let pixel = 0; pixel < newLength; pixel++) {
    const position = fround((pixel + 0.5) * scale - 0.5), first = Math.floor(position);
    const weight = dropsAtBorder && (first < 0 || first >= length - 1) ? 0 : fround(position - first);
    lower[pixel] = Math.min(Math.max(first, 0), length - 1);
    upper[pixel] = Math.min(Math.max(first + 1, 0), length - 1);
    lowerWeight[pixel] = roundHalfToEven(fround(1 - weight) * 2 ** WEIGHT_BITS);
    upperWeight[pixel] = roundHalfToEven(weight * 2 ** WEIGHT_BITS);
  }
  return { lower, upper, lowerWeight, upperWeight };
};

/** One row of a picture, RGBA, at the new width: RGB, times 2 ** 7. */
const resizeRow = (row, columns, width) => {
  const result = new Int32Array(3 * width);
  for (let x = 0, at = 0; x < width; x++) {
    const left = 4 * columns.lower[x], right = 4 * columns.upper[x];
    const leftWeight = columns.lowerWeight[x], rightWeight = columns.upperWeight[x];
    for (let channel = 0; channel < 3; channel++, at++) {
      result[at] = (row[left + channel] * leftWeight + row[right + channel] * rightWeight) >> 4;
    }
  }
  return result;
};

/** The value of each byte after rescaling and normalising, for each channel. */
const normalisedBytes = ({ rescale_factor: factor, image_mean: means, image_std: stds }) =>
  means.map((mean, channel) => Float32Array.from({ length: 256 }, (_, byte) =>
    fround(fround(fround(byte * fround(factor)) - fround(mean)) / fround(stds[channel]))));

/**
 * @param {object} picture `width`, `height`, and `row(y)`, the RGBA bytes of a row, which is asked for from top to
 *   bottom
 * @param {object} rule `image_processor` of the model's card
 * @returns {{height: number, width: number, values: Float32Array}} of shape (3, height, width)
 */
export const prepare = (picture, rule) => {
  const [height, width] = resizedSize(picture.height, picture.width, rule.size);
  const columns = neighbours(width, picture.width, true), rows = neighbours(height, picture.height, false);
  const table = normalisedBytes(rule), plane = height * width, values = new Float32Array(3 * plane);
  let kept = new Map();  // rows of the picture at the new width, of which two are needed at a time
  const resized = (y) => kept.get(y) ?? resizeRow(picture.row(y), columns, width);
  for (let y = 0; y < height; y++) {
    const above = resized(rows.lower[y]);
    kept.set(rows.lower[y], above);
    const below = resized(rows.upper[y]);
    kept = new Map([[rows.lower[y], above], [rows.upper[y], below]]);
    const aboveWeight = rows.lowerWeight[y], belowWeight = rows.upperWeight[y];
    for (let x = 0, at = 0; x < width; x++) {
      for (let channel = 0; channel < 3; channel++, at++) {
        // 11 + 11 bits of weights less 4 and 16: two are left, rounded here.
        const sum = ((above[at] * aboveWeight) >> 16) + ((below[at] * belowWeight) >> 16);
        values[channel * plane + y * width + x] = table[channel][(sum + 2) >> 2];
      }
    }
  }
  return { height, width, values };
};
