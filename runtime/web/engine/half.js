/** Numbers of 16 bits (IEEE 754 binary16), which graphs exported in half precision take and give. */

import { roundEven } from "./numbers.js";

const BITS = new Uint32Array(1);
const AS_FLOAT = new Float32Array(BITS.buffer);

/** The bits of numbers rounded to half precision, halves to even. */
export function toHalf(data) {
  return Uint16Array.from(data, (value) => {
    AS_FLOAT[0] = Number(value);
    const [bits] = BITS;
    const sign = (bits >>> 16) & 0x8000;
    const size = Math.abs(AS_FLOAT[0]);
    if (Number.isNaN(size)) return sign | 0x7e00;
    if (size >= 65520) return sign | 0x7c00;
    if (size < 2 ** -14) return sign | roundEven(size * 2 ** 24);
    const exponent = ((bits >>> 23) & 0xff) - 112;
    const rest = bits & 0x7fffff;
    return sign | ((exponent << 10) + roundEven(rest / 0x2000));
  });
}

/** Numbers of half precision as float32; `data` are their bits, or a Float16Array where the runtime has that. */
export function fromHalf(data) {
  if (!(data instanceof Uint16Array)) return Float32Array.from(data);
  return Float32Array.from(data, (bits) => {
    const sign = bits & 0x8000 ? -1 : 1;
    const exponent = (bits >>> 10) & 0x1f;
    const rest = bits & 0x3ff;
    if (exponent === 0) return sign * rest * 2 ** -24;
    if (exponent === 31) return rest ? NaN : sign * Infinity;
    return sign * (1 + rest / 1024) * 2 ** (exponent - 15);
  });
}
