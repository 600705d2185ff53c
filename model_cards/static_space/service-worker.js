// Copyright 2026 The DenseCLIP for Transformers authors.
// SPDX-License-Identifier: Apache-2.0
/**
 * Keeps the page for visits without a network. The folders of its files are named by what is in them, so a new version
 * never mixes with a former one, whose files are removed. Whatever else lies on this host below the page is left alone.
 */

const CACHE = `denseclip ${registration.scope}`;  // as in page/files.js, which puts the large files there
const SMALL = /* small files */ [];
const FILES = /* all files */ [];
// A page may compute in several threads if nothing on it is from elsewhere, and these headers say so.
const ISOLATION = {
  "Cross-Origin-Embedder-Policy": "require-corp",
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Resource-Policy": "same-origin",
};

const addressOf = (path) => new URL(path, registration.scope).href;
const PAGE = new Set(["./", "index.html"].map(addressOf));
// Files of this version, and of a next one, which comes before its worker.
const OURS = /^(page|model|onnxruntime-web)-[^/]+\/[^/]+$/;

const install = async () => {
  const cache = await caches.open(CACHE);
  const missing = [];
  for (const path of SMALL) {
    // Of the folders a file never changes.
    if (!path.includes("/") || path === "./" || !(await cache.match(addressOf(path)))) missing.push(path);
  }
  await cache.addAll(missing.map((path) => new Request(addressOf(path), { cache: "no-cache" })));
  await skipWaiting();
};

const activate = async () => {
  const cache = await caches.open(CACHE), current = new Set(FILES.map(addressOf));
  for (const request of await cache.keys()) if (!current.has(request.url)) await cache.delete(request);
  await clients.claim();
};

const isolated = (response) => {
  if (!response || response.type !== "basic" && response.type !== "default") return response;
  const headers = new Headers(response.headers);
  for (const [name, value] of Object.entries(ISOLATION)) headers.set(name, value);
  return new Response(response.body, { status: response.status, statusText: response.statusText, headers });
};

/** The page itself comes from the server where that answers, so that a new version shows at once. */
const answerPage = async (request) => {
  const cache = await caches.open(CACHE);
  try {
    const response = await fetch(request, { cache: "no-cache" });
    if (response.ok) return isolated(response);
  } catch {
    // There is no network.
  }
  return isolated(await cache.match(addressOf("./"))) ?? Response.error();
};

const answerFile = async (request) => {
  const cache = await caches.open(CACHE);
  return isolated(await cache.match(request, { ignoreSearch: true }) ?? await fetch(request));
};

self.addEventListener("install", (event) => event.waitUntil(install()));
self.addEventListener("activate", (event) => event.waitUntil(activate()));
self.addEventListener("fetch", (event) => {
  const { request } = event, address = request.url.replace(/[?#].*$/s, "");
  if (request.method !== "GET" || !address.startsWith(registration.scope)) return;
  if (request.mode === "navigate") {
    if (PAGE.has(address)) event.respondWith(answerPage(request));
  } else if (OURS.test(address.slice(registration.scope.length))) {
    event.respondWith(answerFile(request));
  }
});
