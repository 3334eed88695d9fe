/** Pictures: from files to pixels. */

// What is written on each, and the class that the colour of its patch of sky stands for.
const SHIPPED = [
  ["00", "zero", "zero"], ["01", "one", "eight"], ["02", "two", "two"], ["03", "three", "three"],
  ["04", "four", "four"], ["05", "five", "five"], ["06", "six", "six"], ["07", "seven", "seven"],
  ["08", "eight", "two"], ["09", "nine", "nine"], ["10", "three", "six"], ["11", "seven", "four"],
];

/** The pictures that come with the page. */
export function shippedPictures() {
  return SHIPPED.map(([number, digit, sky]) => {
    const key = `${number}_${digit}`;
    const about = `patch of sky in the colour of “${sky}”`;
    return { key, name: `${key}.png`, about, shown: String(new URL(`../pictures/${key}.png`, import.meta.url)) };
  });
}

/** A file that is no picture, or none that this browser reads. */
class PictureError extends Error {
  name = "PictureError";
}

// Photographs are large: only the pixels of the last few are kept.
const MOST_KEPT = 6;
const kept = [];
let made = 0;

/** A picture that was handed in. */
export function ownPicture(file) {
  made += 1;
  return { key: `own ${made}`, name: file.name || `pasted ${made}.png`, file, shown: URL.createObjectURL(file) };
}

/** Whether a file is a picture by what it says of itself. */
export function isPicture(file) {
  return file.type.startsWith("image/") || /\.(png|jpe?g|webp|gif|bmp|avif|tiff?)$/i.test(file.name);
}

/** The pixels of a picture, {data, width, height, name}; PictureError where it can't be read. */
export function pixelsOf(picture) {
  const place = kept.findIndex(([each]) => each === picture);
  const entry = place < 0 ? [picture, decoded(picture)] : kept.splice(place, 1)[0];
  kept.push(entry);
  if (kept.length > MOST_KEPT) kept.shift();
  return entry[1];
}

async function decoded({ name, file, shown }) {
  const source = file ?? (await (await fetch(shown)).blob());
  let bitmap;
  try {
    // The numbers of the file, as other languages read them: no colour profile applied, nothing multiplied by alpha.
    bitmap = await createImageBitmap(source, {
      colorSpaceConversion: "none", premultiplyAlpha: "none", imageOrientation: "from-image",
    });
  } catch {
    throw new PictureError(`${name} can't be read as a picture`);
  }
  const { width, height } = bitmap;
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, width, height);
  const pixels = isOpaque(data) ? data : unmultiplied(bitmap);
  bitmap.close();
  return { data: pixels, width, height, name };
}

function isOpaque(data) {
  for (let place = 3; place < data.length; place += 4) if (data[place] !== 255) return false;
  return true;
}

/** The colours of see-through pixels, which a 2D canvas loses. */
function unmultiplied(bitmap) {
  const { width, height } = bitmap;
  const gl = new OffscreenCanvas(1, 1).getContext("webgl");
  if (!gl) throw new PictureError("this picture has transparent parts, which this browser can't read without WebGL");
  const texture = gl.createTexture();
  gl.bindTexture(gl.TEXTURE_2D, texture);
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, bitmap);
  gl.bindFramebuffer(gl.FRAMEBUFFER, gl.createFramebuffer());
  gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, texture, 0);
  const data = new Uint8Array(4 * width * height);
  gl.readPixels(0, 0, width, height, gl.RGBA, gl.UNSIGNED_BYTE, data);
  return new Uint8ClampedArray(data.buffer);
}
