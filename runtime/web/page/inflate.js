/** Fetches files that are shipped compressed, so that the page needs nothing of its server but the bytes. */

/** The bytes of a compressed file, inflated; null where there is none. */
export async function inflated(address, signal) {
  const response = await fetch(address, { signal });
  if (response.status === 404) return null;
  if (!response.ok) throw new Error(`${address} can't be fetched: ${response.status} ${response.statusText}`);
  const bytes = new Uint8Array(await response.arrayBuffer());
  // Some servers announce such a file as compressed in transfer; the browser has inflated it then.
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes;
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
