/** The files of a bundle, wherever they are: behind an address, in a folder of Node, or in memory. */

import { BundleError, quoted } from "./errors.js";
import { sha256 } from "./sha256.js";
import { IS_NODE, nodeModules } from "./system.js";

export const DESCRIPTION = "explainer.json";

/**
 * The files of a source. `read(name)` gives a file's bytes, or null where there is none; `path(name)`, where there is
 * one, a path that onnxruntime-node can open by itself; `single` is the name of the one .onnx file, or null.
 */
export async function filesOf(source, options) {
  if (source instanceof Map) return inMemory([...source].map(([name, bytes]) => ({ name, bytes })));
  if (typeof source === "object" && source?.[Symbol.iterator]) return inMemory([...source]);
  if (source && typeof source === "object" && "name" in source) return inMemory([source]);
  if (typeof source !== "string" && !(source instanceof URL)) {
    throw new BundleError("a bundle is an address, a path, or files with their names and bytes");
  }
  const text = String(source);
  if (IS_NODE && source instanceof URL && source.protocol === "file:") return inFolder(source, options);
  if (IS_NODE && !/^[a-z][a-z0-9+.-]+:/i.test(text)) return inFolder(text, options);
  return behindAddress(text, options);
}

function inMemory(entries) {
  const files = new Map();
  for (const entry of entries) {
    const path = entry.webkitRelativePath || entry.name || "";
    // A File has a method of the name `bytes` in newer browsers.
    files.set(path.split("/").pop(), typeof (entry.bytes ?? "") === "object" ? entry.bytes : entry);
  }
  const models = [...files.keys()].filter((name) => name.endsWith(".onnx"));
  const single = files.has(DESCRIPTION) || models.length !== 1 ? null : models[0];
  if (!single && !files.has(DESCRIPTION)) {
    throw new BundleError("these files have no explainer.json among them, so they are no bundle");
  }
  return {
    place: single ?? entries[0].webkitRelativePath?.split("/")[0] ?? "",
    single,
    lazy: false,
    has: async (name) => files.has(name),
    read: async (name) => bytesOf(files.get(name)),
    hash: async (name) => sha256(await bytesOf(files.get(name))),
  };
}

async function bytesOf(content) {
  if (content === undefined) return null;
  if (content instanceof Uint8Array) return content;
  if (content instanceof ArrayBuffer) return new Uint8Array(content);
  if (ArrayBuffer.isView(content)) return new Uint8Array(content.buffer, content.byteOffset, content.byteLength);
  if (typeof content.arrayBuffer === "function") return new Uint8Array(await content.arrayBuffer());
  throw new BundleError("a file of a bundle is bytes: a Uint8Array, an ArrayBuffer or a File");
}

async function inFolder(source, options) {
  const [fs, path, crypto, url] = await nodeModules("fs", "path", "crypto", "url");
  const given = source instanceof URL ? url.fileURLToPath(source) : source;
  const kind = await fs.promises.stat(given).catch(() => null);
  if (kind === null) {
    throw new BundleError(`${given} does not exist; make a bundle with: onnxplain export MODEL.onnx -o NAME.explain`);
  }
  const single = kind.isFile() ? path.basename(given) : null;
  const folder = single === null ? given : path.dirname(given);
  const at = (name) => path.join(folder, name);
  return {
    place: given,
    single,
    lazy: false,
    path: options.ort.listSupportedBackends ? at : undefined,
    has: async (name) => (await fs.promises.stat(at(name)).catch(() => null))?.isFile() ?? false,
    read: async (name) => {
      try {
        return new Uint8Array(await fs.promises.readFile(at(name)));
      } catch (error) {
        if (error.code === "ENOENT" || error.code === "ENOTDIR") return null;
        throw new BundleError(`${at(name)} can't be read: ${error.message}`);
      }
    },
    hash: async (name) => {
      const digest = crypto.createHash("sha256");
      for await (const part of fs.createReadStream(at(name))) digest.update(part);
      return digest.digest("hex");
    },
  };
}

function behindAddress(text, options) {
  const base = globalThis.document?.baseURI ?? globalThis.location?.href;
  const address = new URL(text, base);
  const single = address.pathname.endsWith(".onnx") ? address.pathname.split("/").pop() : null;
  if (!single && !address.pathname.endsWith("/")) address.pathname += "/";
  const read = (name) => fetched(new URL(encodeURIComponent(name), address), name, options);
  return {
    place: text,
    single: single === null ? null : decodeURIComponent(single),
    lazy: true,
    has: async () => true, // what isn't there is an error when it is fetched
    read: single ? () => fetched(address, single, options) : read,
    hash: async () => null,
  };
}

async function requested(address, { fetch = globalThis.fetch, signal }) {
  try {
    return await fetch(String(address), { signal });
  } catch (error) {
    signal?.throwIfAborted();
    throw new BundleError(`${address} can't be fetched: ${error?.message ?? error}`, { cause: error });
  }
}

/** A file's bytes, with news of how far it is; null where there is none. */
async function fetched(address, name, options) {
  const response = await requested(address, options);
  if (response.status === 404 || response.status === 403) return null;
  if (!response.ok) throw new BundleError(`${address} can't be fetched: ${response.status} ${response.statusText}`);
  if (!options.onLoad || !response.body) return new Uint8Array(await response.arrayBuffer());
  // A compressed transfer has the length of what is transferred, which isn't that of the file.
  const whole = response.headers.get("content-encoding")
    ? null
    : Number(response.headers.get("content-length")) || null;
  const parts = [];
  let loaded = 0;
  const reader = response.body.getReader();
  for (let step = await reader.read(); !step.done; step = await reader.read()) {
    parts.push(step.value);
    loaded += step.value.length;
    options.onLoad({ file: name, loaded, total: whole });
  }
  const bytes = new Uint8Array(loaded);
  let place = 0;
  for (const part of parts) {
    bytes.set(part, place);
    place += part.length;
  }
  return bytes;
}

/** How errors call a file of the source. */
export function fileName(files, name) {
  if (files.single !== null) return files.place || name;
  return files.place ? `${files.place.replace(/\/+$/, "")}/${name}` : name;
}

/** Bytes as the JSON that they are; BundleError otherwise. */
export function parsed(text, name) {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new BundleError(`${name} is not JSON (${quoted(error.message)}); export the bundle again`);
  }
}
