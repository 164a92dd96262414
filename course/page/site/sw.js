// Keeps the page for when there is no network, and gives it the headers without which a browser starts no threads, where the
// host does not send them (a static host cannot be told to). What the network has comes first.

const worker = /** @type {ServiceWorkerGlobalScope} */ (/** @type {unknown} */ (self));
const VERSION = new URL(worker.location.href).searchParams.get("version");
const CACHE = `page-${VERSION}`;
const GRAPHICS = "webgpu/"; // a folder that is loaded only where a graphics card is tried
const HEADERS = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
  "Cross-Origin-Resource-Policy": "same-origin",
};

/** @param {Response} answer */
function with_headers(answer) {
  const headers = new Headers(answer.headers);
  for (const [name, value] of Object.entries(HEADERS)) headers.set(name, value);
  return new Response(answer.body, { status: answer.status, statusText: answer.statusText, headers });
}

async function keep() {
  const cache = await caches.open(CACHE);
  const about = await fetch("page.json");
  const { files } = await about.clone().json();
  await cache.put("page.json", about);
  await cache.addAll(["./", ...Object.keys(files).filter((name) => !name.startsWith(GRAPHICS))]);
}

/** Keeps what only a graphics card needs too; the browser has loaded it a moment ago. */
async function keep_graphics() {
  const cache = await caches.open(CACHE);
  const { files } = await (await cache.match("page.json"))?.json();
  const names = Object.keys(files).filter((name) => name.startsWith(GRAPHICS));
  await cache.addAll(names.map((name) => new Request(name, { cache: "force-cache" })));
}

async function forget() {
  for (const name of await caches.keys()) if (name.startsWith("page-") && name !== CACHE) await caches.delete(name);
  await worker.clients.claim();
}

/** @param {Request} request */
async function answer(request) {
  try {
    const found = await fetch(request);
    if (found.ok) return with_headers(found);
  } catch {
    // no network: what was kept will do
  }
  const kept = await (await caches.open(CACHE)).match(request, { ignoreSearch: true, ignoreVary: true });
  return kept ? with_headers(kept) : Response.error();
}

worker.addEventListener("install", (event) => event.waitUntil(keep().then(() => worker.skipWaiting())));
worker.addEventListener("activate", (event) => event.waitUntil(forget()));
worker.addEventListener("message", (event) => event.data === "graphics" && event.waitUntil(keep_graphics()));
worker.addEventListener("fetch", (event) => {
  const { method, url } = event.request;
  if (method === "GET" && new URL(url).origin === worker.location.origin) event.respondWith(answer(event.request));
});
