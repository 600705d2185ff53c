// Copyright 2026 The DenseCLIP for Transformers authors.
// SPDX-License-Identifier: Apache-2.0
/**
 * Photographs that visitors choose. What is no picture, broken or too large is told by the bytes of the file, before
 * anything is decoded, in the words of modeling_denseclip/tools/page/answers.py.
 */

/** Something that visitors have to know, in words for them. */
export class Refusal extends Error {}

// What Python has no need to say.
export const TRANSPARENT = "Transparent pixels count as black here; Python takes the colour that is stored beneath.";
export const CHANGED_CANVAS = "This browser changes the pixels that a page reads, to guard against fingerprinting, so"
  + " the model would see another picture. Allow this page to read canvases, or take another browser.";

const BANDS = 2 ** 22;  // pixels that are read at a time
const START_OF_FRAME = [0xc0, 0xc1, 0xc2, 0xc3, 0xc5, 0xc6, 0xc7, 0xc9, 0xca, 0xcb, 0xcd, 0xce, 0xcf];
const START_OF_SCAN = 0xda, END_OF_IMAGE = 0xd9;

/** A message of Python with its words in braces replaced. */
export const fill = (message, words) => message.replace(/{(\w+)}/g, (_, name) => words[name]);

const latin = (bytes, first = 0, last = bytes.length) => String.fromCharCode(...bytes.subarray(first, last));

/**
 * Form and size of a PNG, JPEG, WebP or BMP; `isWhole` tells whether it ends where it should.
 *
 * @returns {?object} null for what is none of them, or broken before its size is known
 */
export const readHeader = (bytes) => {
  const start = latin(bytes, 0, 4), read = { "\x89PNG": readPng, "RIFF": readWebp }[start]
    ?? (start.startsWith("BM") ? readBmp : start.startsWith("\xff\xd8\xff") ? readJpeg : () => null);
  try {
    return read(bytes, new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength));
  } catch (error) {
    if (error instanceof RangeError) return null;  // the file ends before
    throw error;
  }
};

const readPng = (bytes, view) => {
  if (latin(bytes, 0, 8) !== "\x89PNG\r\n\x1a\n" || latin(bytes, 12, 16) !== "IHDR") return null;
  const found = { form: "PNG", width: view.getUint32(16), height: view.getUint32(20), hasAlpha: bytes[25] >= 4,
    isWhole: false };
  for (let place = 8; place + 12 <= bytes.length; place += 12 + view.getUint32(place)) {
    const name = latin(bytes, place + 4, place + 8);
    found.hasAlpha ||= name === "tRNS";
    found.isWhole ||= name === "IEND";
  }
  return found;
};

const readJpeg = (bytes, view) => {
  let found = null;
  for (let place = 2; place < bytes.length;) {
    if (bytes[place] !== 0xff || bytes[place + 1] === 0xff) {  // bytes between segments are passed over
      place++;
      continue;
    }
    const marker = bytes[place + 1];
    if (START_OF_FRAME.includes(marker)) {
      found = { form: "JPEG", width: view.getUint16(place + 7), height: view.getUint16(place + 5), hasAlpha: false };
    }
    if (marker === START_OF_SCAN) return found && { ...found, isWhole: hasEnd(bytes, place) };
    place += marker === 1 || (marker >= 0xd0 && marker <= 0xd7) ? 2 : 2 + view.getUint16(place + 2);
  }
  return found && { ...found, isWhole: false };
};

/** Whether a JPEG goes on to its end. Between its scans no other byte than 0 and restarts follows on 0xff. */
const hasEnd = (bytes, place) => {
  while ((place = bytes.indexOf(0xff, place + 1)) !== -1) if (bytes[place + 1] === END_OF_IMAGE) return true;
  return false;
};

const readWebp = (bytes, view) => {
  if (latin(bytes, 8, 12) !== "WEBP") return null;
  const kind = latin(bytes, 12, 16), three = (place) => view.getUint16(place, true) + 65536 * bytes[place + 2];
  const isWhole = bytes.length >= 8 + view.getUint32(4, true), rest = { form: "WEBP", isWhole };
  if (kind === "VP8X") {
    return { width: three(24) + 1, height: three(27) + 1, hasAlpha: (bytes[20] & 0x10) !== 0, ...rest };
  }
  if (kind === "VP8L") {
    const bits = view.getUint32(21, true);
    return { width: (bits & 0x3fff) + 1, height: ((bits >>> 14) & 0x3fff) + 1, hasAlpha: (bits >>> 28 & 1) === 1,
      ...rest };
  }
  const side = (place) => view.getUint16(place, true) & 0x3fff;
  return kind === "VP8 " ? { width: side(26), height: side(28), hasAlpha: false, ...rest } : null;
};

/** The orientation in the EXIF data of a WebP, from 1 to 8; 1 where there is none. Browsers turn only other pictures. */
export const webpOrientation = (bytes) => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  try {
    for (let place = 12; place < bytes.length; place += 8 + view.getUint32(place + 4, true) % 2
      + view.getUint32(place + 4, true)) {
      if (latin(bytes, place, place + 4) !== "EXIF") continue;
      const start = place + 8 + (latin(bytes, place + 8, place + 14) === "Exif\0\0" ? 6 : 0);
      const isLittle = latin(bytes, start, start + 2) === "II", first = start + view.getUint32(start + 4, isLittle);
      for (let index = 0; index < view.getUint16(first, isLittle); index++) {
        const entry = first + 2 + 12 * index, value = view.getUint16(entry + 8, isLittle);
        if (view.getUint16(entry, isLittle) === 0x0112) return value >= 1 && value <= 8 ? value : 1;
      }
      return 1;
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;  // the data end before
  }
  return 1;
};

// For each orientation the first four numbers of the transform that turns a picture upright.
const TURNS = [null, [1, 0, 0, 1], [-1, 0, 0, 1], [-1, 0, 0, -1], [1, 0, 0, -1], [0, 1, 1, 0], [0, 1, -1, 0],
  [0, -1, -1, 0], [0, -1, 1, 0]];

const turn = (bitmap, orientation) => {
  if (orientation === 1) return bitmap;
  const { width, height } = bitmap, [a, b, c, d] = TURNS[orientation], isAcross = a === 0;
  const canvas = new OffscreenCanvas(isAcross ? height : width, isAcross ? width : height);
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  // What would lie left of the canvas or above it is moved onto it.
  context.setTransform(a, b, c, d, a + c < 0 ? canvas.width : 0, b + d < 0 ? canvas.height : 0);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return canvas.transferToImageBitmap();
};

const readBmp = (bytes, view) => {
  const isOld = view.getUint32(14, true) === 12;  // its sides have 16 bits
  const [width, height] = isOld ? [view.getUint16(18, true), view.getUint16(20, true)]
    : [view.getInt32(18, true), Math.abs(view.getInt32(22, true))];  // rows from top to bottom have a negative height
  return { form: "BMP", width, height, hasAlpha: false, isWhole: bytes.length >= view.getUint32(10, true) };
};

/** What a file is that is no picture, where that can be told; as `describe_stranger` of photographs.py, by its list. */
export const describeStranger = (bytes, strangers) => {
  if (bytes.length === 0) return "it is an empty file";
  const beginning = latin(bytes, 0, 512), text = beginning.trimStart().toLowerCase();
  if (/^(<!doctype html|<html|<head|<body)/.test(text)) return "it is a page of HTML";
  if (text.includes("<svg")) return "it is an SVG";
  if (/^(II\*\0|MM\0\*|II\+\0|MM\0\+)/.test(beginning)) return "it is a TIFF, which browsers do not read";
  if (beginning.slice(4, 8) === "ftyp") {
    if (beginning.slice(8, 64).includes("avif")) return "it is an AVIF";
    return /^(hei|hev|mif|msf)/.test(beginning.slice(8)) ? "it is a HEIC" : "it is a video";
  }
  const found = strangers.find(([first]) => beginning.startsWith(first));
  return found && `it is ${found[1]}`;
};

/**
 * Look at a file before it is decoded.
 *
 * @param {Uint8Array} bytes of a file that is not too large
 * @throws {Refusal} for what is no picture that browsers read, or has too many pixels
 */
export const examineFile = (bytes, { messages, maximumPixels, strangers }) => {
  const header = readHeader(bytes);
  if (header === null || !header.isWhole || !(header.width > 0 && header.height > 0)) {
    throw new Refusal(fill(messages.unreadable, { reason: (header === null && describeStranger(bytes, strangers))
      || messages.damaged }));
  }
  if (header.width * header.height > maximumPixels) throw new Refusal(fill(messages.manyPixels, header));
  return header;
};

/** @throws {Refusal} for a file of too many bytes, which is not read */
export const checkBytes = (file, { messages, maximumBytes }) => {
  if (file.size > maximumBytes) {
    throw new Refusal(fill(messages.manyBytes, { megabytes: (file.size / 2 ** 20).toFixed(1) }));
  }
};

/**
 * The upright photograph as an ImageBitmap, in the colours that are stored, without regard to a colour profile, as
 * Python reads it.
 *
 * @throws {Refusal} as above, and for a broken file
 */
export const decodePhotograph = async (file, settings) => {
  checkBytes(file, settings);
  const bytes = new Uint8Array(await file.arrayBuffer()), header = examineFile(bytes, settings);
  const isWebp = header.form === "WEBP";
  try {
    const bitmap = await createImageBitmap(file, { imageOrientation: isWebp ? "none" : "from-image",
      premultiplyAlpha: "none", colorSpaceConversion: "none" });
    return { bitmap: isWebp ? turn(bitmap, webpOrientation(bytes)) : bitmap, hasAlpha: header.hasAlpha };
  } catch {
    throw new Refusal(fill(settings.messages.unreadable, { reason: settings.messages.damaged }));
  }
};

/** The pixels of an ImageBitmap row by row, for [`prepare`]: a canvas of all of them would be too large for phones. */
export const pixelRows = (bitmap) => {
  const { width, height } = bitmap, rows = Math.max(1, Math.min(height, Math.floor(BANDS / width)));
  const context = new OffscreenCanvas(width, rows).getContext("2d", { willReadFrequently: true });
  let first = 0, data = null;
  const row = (y) => {
    if (data === null || y < first || y >= first + rows) {
      first = y;
      context.clearRect(0, 0, width, rows);
      context.drawImage(bitmap, 0, -first);
      ({ data } = context.getImageData(0, 0, width, rows));
    }
    return data.subarray(4 * (y - first) * width, 4 * (y - first + 1) * width);
  };
  return { width, height, row };
};

/**
 * Whether a canvas gives back the pixels that were put on it. Browsers that guard against fingerprinting change them.
 */
export const canvasIsTrue = () => {
  const side = 16, image = new ImageData(side, side);
  for (let index = 0; index < image.data.length; index++) {
    image.data[index] = index % 4 === 3 ? 255 : (37 * index) % 256;
  }
  const context = new OffscreenCanvas(side, side).getContext("2d", { willReadFrequently: true });
  context.putImageData(image, 0, 0);
  return context.getImageData(0, 0, side, side).data.every((byte, index) => byte === image.data[index]);
};
