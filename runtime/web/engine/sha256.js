/** SHA-256 (FIPS 180-4): the browser's own where it has one, which is in secure contexts alone, else this. */

const ROOTS = new Uint32Array(64);
const START = new Uint32Array(8);
{
  // The first 32 bits of the fractions of the cube and square roots of the first primes.
  let found = 0;
  for (let number = 2; found < 64; number++) {
    let prime = true;
    for (let factor = 2; factor * factor <= number; factor++) prime &&= number % factor !== 0;
    if (!prime) continue;
    if (found < 8) START[found] = (Math.sqrt(number) % 1) * 2 ** 32;
    ROOTS[found++] = (Math.cbrt(number) % 1) * 2 ** 32;
  }
}

/** The SHA-256 of bytes, in hexadecimal. */
export async function sha256(bytes) {
  const subtle = globalThis.crypto?.subtle;
  if (subtle) return hexadecimal(new Uint8Array(await subtle.digest("SHA-256", bytes)));
  return sha256Plain(bytes);
}

/** The same, computed here. */
export function sha256Plain(bytes) {
  const state = Uint32Array.from(START);
  const schedule = new Uint32Array(64);
  const whole = bytes.length - (bytes.length % 64);
  for (let start = 0; start < whole; start += 64) compress(state, schedule, bytes, start);
  const rest = bytes.length - whole;
  const tail = new Uint8Array(rest < 56 ? 64 : 128);
  tail.set(bytes.subarray(whole));
  tail[rest] = 0x80;
  const view = new DataView(tail.buffer);
  view.setUint32(tail.length - 8, Math.floor(bytes.length / 2 ** 29));
  view.setUint32(tail.length - 4, (bytes.length * 8) >>> 0);
  for (let start = 0; start < tail.length; start += 64) compress(state, schedule, tail, start);
  const digest = new Uint8Array(32);
  state.forEach((word, place) => new DataView(digest.buffer).setUint32(4 * place, word));
  return hexadecimal(digest);
}

function compress(state, w, bytes, start) {
  for (let i = 0; i < 16; i++) {
    const at = start + 4 * i;
    w[i] = (bytes[at] << 24) | (bytes[at + 1] << 16) | (bytes[at + 2] << 8) | bytes[at + 3];
  }
  for (let i = 16; i < 64; i++) {
    const [x, y] = [w[i - 15], w[i - 2]];
    const low = turned(x, 7) ^ turned(x, 18) ^ (x >>> 3);
    const high = turned(y, 17) ^ turned(y, 19) ^ (y >>> 10);
    w[i] = w[i - 16] + low + w[i - 7] + high;
  }
  let [a, b, c, d, e, f, g, h] = state;
  for (let i = 0; i < 64; i++) {
    const mix = turned(e, 6) ^ turned(e, 11) ^ turned(e, 25);
    const first = (h + mix + ((e & f) ^ (~e & g)) + ROOTS[i] + w[i]) | 0;
    const second = ((turned(a, 2) ^ turned(a, 13) ^ turned(a, 22)) + ((a & b) ^ (a & c) ^ (b & c))) | 0;
    [h, g, f, e, d, c, b, a] = [g, f, e, (d + first) | 0, c, b, a, (first + second) | 0];
  }
  [a, b, c, d, e, f, g, h].forEach((word, place) => {
    state[place] += word;
  });
}

function turned(word, bits) {
  return (word >>> bits) | (word << (32 - bits));
}

function hexadecimal(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
