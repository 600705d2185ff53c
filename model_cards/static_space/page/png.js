// Copyright 2026 The DenseCLIP for Transformers authors.
// SPDX-License-Identifier: Apache-2.0
/** Class ids as a PNG: what `draw_mask` of modeling_denseclip/tools/pictures/drawing.py makes of them. */

const SIGNATURE = Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a);
const GREY = 0, PALETTE = 3;  // types of colour
const PALETTE_SIZE = 256;  // a PNG whose palette has the colours holds no more ids
// CRC-32 of each byte.
const CRCS = Uint32Array.from({ length: 256 }, (_, byte) => {
  for (let bit = 0; bit < 8; bit++) byte = byte & 1 ? (byte >>> 1) ^ 0xedb88320 : byte >>> 1;
  return byte;
});

const crc = (bytes) => {
  let sum = 0xffffffff;
  for (const byte of bytes) sum = CRCS[(sum ^ byte) & 0xff] ^ (sum >>> 8);
  return ~sum >>> 0;
};

const chunk = (name, data) => {
  const bytes = new Uint8Array(data.length + 12), view = new DataView(bytes.buffer);
  view.setUint32(0, data.length);
  for (let index = 0; index < 4; index++) bytes[4 + index] = name.charCodeAt(index);
  bytes.set(data, 8);
  view.setUint32(bytes.length - 4, crc(bytes.subarray(4, -4)));
  return bytes;
};

const compress = async (bytes) => {
  const stream = new Blob([bytes]).stream().pipeThrough(new CompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
};

/**
 * A palette picture with the colours of the classes or, of more of them than a palette holds, greys of 16 bits.
 *
 * @param {Uint8Array|Uint16Array} ids of shape (height, width)
 * @param {number[][]} palette one RGB colour per class, in [0, 255]
 * @returns {Promise<Blob>}
 */
export const encodeMask = async (ids, height, width, palette) => {
  const isGrey = palette.length > PALETTE_SIZE, rowBytes = 1 + (isGrey ? 2 * width : width);
  const rows = new Uint8Array(height * rowBytes);  // each begins with the type of its filter, 0 for none
  for (let y = 0; y < height; y++) {
    const row = ids.subarray(y * width, (y + 1) * width), first = y * rowBytes + 1;
    if (!isGrey) rows.set(row, first);
    else row.forEach((id, x) => rows.set([id >> 8, id & 0xff], first + 2 * x));
  }
  const header = new Uint8Array(13), view = new DataView(header.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  header.set([isGrey ? 16 : 8, isGrey ? GREY : PALETTE], 8);
  const colors = isGrey ? [] : [chunk("PLTE", Uint8Array.from(palette.flat()))];
  return new Blob([SIGNATURE, chunk("IHDR", header), ...colors, chunk("IDAT", await compress(rows)),
    chunk("IEND", new Uint8Array(0))], { type: "image/png" });
};
