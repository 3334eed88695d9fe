/**
 * What an .onnx file says about itself: its metadata_props, read from its bytes, since JavaScript sessions don't show
 * them. Of protobuf's wire format only what is needed to step over the other fields.
 */

const METADATA = 14; // ModelProto.metadata_props, of StringStringEntryProto: key 1, value 2

/** The entries of metadata_props, by key; RangeError for bytes that are no ONNX model. */
export function metadataOf(bytes) {
  const found = {};
  for (const field of fieldsOf(bytes, 0, bytes.length)) {
    if (field.number !== METADATA || field.kind !== 2) continue;
    const entry = { 1: "", 2: "" };
    for (const part of fieldsOf(bytes, field.start, field.end)) {
      if (part.kind === 2) entry[part.number] = new TextDecoder().decode(bytes.subarray(part.start, part.end));
    }
    found[entry[1]] = entry[2];
  }
  return found;
}

/** The fields of a message: their number, wire type, and where their bytes are. */
function* fieldsOf(bytes, first, past) {
  let at = first;
  while (at < past) {
    const tag = variable(bytes, at, past);
    const number = Math.floor(tag.value / 8);
    const kind = tag.value % 8;
    let start = tag.next;
    let end;
    if (kind === 0) end = variable(bytes, start, past).next;
    else if (kind === 1) end = start + 8;
    else if (kind === 5) end = start + 4;
    else if (kind === 2) {
      const length = variable(bytes, start, past);
      start = length.next;
      end = start + length.value;
    } else throw new RangeError(`wire type ${kind} at byte ${at}`);
    if (end > past || number === 0) throw new RangeError(`a field at byte ${at} reaches beyond its end`);
    yield { number, kind, start, end };
    at = end;
  }
}

/** A number of variable length; exact below 2^53, which lengths are. */
function variable(bytes, at, past) {
  let value = 0;
  let scale = 1;
  for (let next = at; next < past && next < at + 10; next++) {
    value += (bytes[next] & 0x7f) * scale;
    if (bytes[next] < 0x80) return { value, next: next + 1 };
    scale *= 128;
  }
  throw new RangeError(`a number at byte ${at} has no end`);
}
