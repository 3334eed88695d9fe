/** Files that the browser saves: raw maps as numpy's .npy, pictures as PNG. */

/** A raw map as a .npy file of version 1, float32, as numpy.load reads it. */
export function npyOf({ data, dims }) {
  const shape = dims.length === 1 ? `${dims[0]},` : dims.join(", ");
  const header = `{'descr': '<f4', 'fortran_order': False, 'shape': (${shape}), }`;
  // The magic number, version and length take 10 bytes; the numbers begin at a multiple of 64, after a line's end.
  const padded = `${header.padEnd(Math.ceil((header.length + 11) / 64) * 64 - 11)}\n`;
  const start = Uint8Array.of(0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0, padded.length & 255, padded.length >> 8);
  const numbers = new DataView(new ArrayBuffer(4 * data.length));
  data.forEach((value, place) => numbers.setFloat32(4 * place, value, true));
  return new Blob([start, padded, numbers.buffer], { type: "application/octet-stream" });
}

/** Has the browser save a file. */
export function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** A name for a file, of the picture's, the network's and the method's. */
export const fileName = (parts, ending) =>
  `${parts.map((part) => part.replace(/\.[^.]*$/, "").replace(/[^\p{L}\p{N}._-]+/gu, "_")).join(".")}${ending}`;
