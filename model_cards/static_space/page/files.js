// Copyright 2026 The DenseCLIP for Transformers authors.
// SPDX-License-Identifier: Apache-2.0
/** The large files of the page: fetched with progress, checked, and kept for visits without a network. */

import { Refusal } from "./pictures.js";

const ROOT = new URL("../", import.meta.url);
const CACHE = `denseclip ${ROOT}`;  // the service worker's too

export const addressOf = (path) => new URL(path, ROOT).href;

/** Where pages may keep files: not in a context that is not secure, nor where the visitor forbids it. */
const openCache = async () => {
  try {
    return await caches.open(CACHE);
  } catch {
    return null;
  }
};

const readAll = async (response, numBytes, report) => {
  const bytes = new Uint8Array(numBytes), reader = response.body.getReader();
  let place = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return place === numBytes ? bytes : null;
    if (place + value.length > numBytes) return null;
    bytes.set(value, place);
    place += value.length;
    report(value.length);
  }
};

/** Only a secure context can compute a sum. */
const isRight = async (bytes, sha256) => {
  if (bytes === null || !globalThis.crypto?.subtle) return bytes !== null;
  const sum = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(sum, (byte) => byte.toString(16).padStart(2, "0")).join("") === sha256;
};

/**
 * The bytes of a file, from the cache or the server.
 *
 * @param {object} file `path` from the page's folder on, `bytes` and `sha256`
 * @param {function(number): void} report gets the number of bytes of each part as it arrives; negative where the
 *   file is read anew
 * @throws {Refusal} for a file that does not arrive whole
 */
export const fetchFile = async (file, report) => {
  const cache = await openCache(), address = addressOf(file.path);
  let reported = 0;
  const count = (length) => {
    reported += length;
    report(length);
  };
  const kept = await cache?.match(address);
  if (kept) {
    const bytes = await readAll(kept, file.bytes, count);
    if (await isRight(bytes, file.sha256)) return bytes;
    await cache.delete(address);
    report(-reported);
  }
  let response;
  try {
    response = await fetch(address);
  } catch {
    throw new Refusal(`${file.path} could not be loaded. Is there a network? Then load this page again.`);
  }
  if (!response.ok) {
    throw new Refusal(`${file.path} could not be loaded: the server answers ${response.status}. Load this page again.`);
  }
  const bytes = await readAll(response, file.bytes, report);
  if (!(await isRight(bytes, file.sha256))) {
    throw new Refusal(`${file.path} did not arrive as it was written: it has other bytes. Load this page again; if that`
      + " does not help, the page has to be uploaded anew.");
  }
  // Where there is no room the page works all the same, with a network.
  await cache?.put(address, new Response(bytes)).catch(() => {});
  return bytes;
};
