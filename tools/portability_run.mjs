// Runs the cases of tools/portability_cases.py on onnxruntime-node: `node portability_run.mjs CASES.JSON FOLDER`.
// The package is looked for in the folder that ONNXRUNTIME_PACKAGES names (one with node_modules), else beside this file.
import { createRequire } from 'node:module';
import fs from 'node:fs';
import path from 'node:path';

const ARRAYS = { float32: Float32Array, int64: BigInt64Array, uint8: Uint8Array, int32: Int32Array, float64: Float64Array };
const packages = process.env.ONNXRUNTIME_PACKAGES;
const load = createRequire(packages ? path.join(packages, 'package.json') : import.meta.url);
const ort = load('onnxruntime-node');

function tensor(entry) {
  const bytes = fs.readFileSync(entry.file);
  const buffer = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
  return new ort.Tensor(entry.dtype, new ARRAYS[entry.dtype](buffer), entry.shape);
}

async function run(entry, folder) {
  const session = await ort.InferenceSession.create(entry.model, { logSeverityLevel: 4 });
  const feeds = Object.fromEntries(entry.inputs.map((input) => [input.name, tensor(input)]));
  const results = await session.run(feeds, entry.outputs);
  return entry.outputs.map((name, number) => {
    const { data, dims, type } = results[name];
    const file = `output_${number}.bin`; // a name may have slashes
    fs.writeFileSync(path.join(folder, file), Buffer.from(data.buffer, data.byteOffset, data.byteLength));
    return { name, dtype: type, shape: [...dims], file };
  });
}

const [cases, folder] = process.argv.slice(2);
for (const entry of JSON.parse(fs.readFileSync(cases, 'utf8'))) {
  const place = path.join(folder, entry.id);
  const result = path.join(place, 'result.json');
  if (fs.existsSync(result)) continue;
  fs.mkdirSync(place, { recursive: true });
  fs.writeFileSync(path.join(place, 'started'), '');
  let answer;
  try {
    answer = { outputs: await run(entry, place) };
  } catch (error) {
    answer = { error: String(error.message ?? error) };
  }
  fs.writeFileSync(result, JSON.stringify(answer));
}
