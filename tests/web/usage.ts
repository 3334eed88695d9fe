// Compiled, never run: a caller's program has to fit the types.

import {
  type BundleFile,
  type Numbers,
  BundleError,
  Explainer,
  OnnxplainError,
  heatmap,
  prepare,
} from "../../runtime/web/onnxplain.js";

declare const ort: unknown;
declare const dropped: File[];
declare const canvas: CanvasRenderingContext2D;

export async function use(signal: AbortSignal): Promise<Float32Array> {
  const explainer = await Explainer.open("honest.explain", { ort, providers: ["wasm"], signal });
  const files: BundleFile[] = dropped;
  const other = await Explainer.open(files, {
    ort,
    verify: true,
    onLoad: ({ file, loaded }) => console.log(file, loaded),
  });
  const picture = canvas.getImageData(0, 0, 64, 64);
  const result = await explainer.explain(picture, {
    method: "smoothgrad",
    targets: ["zebra"],
    parameters: { samples: 10, noise_of: "image" },
    memory: "500MB",
    onProgress: (share) => console.log(share),
    onPartial: (partial) => console.log(partial.heatmap()?.dims),
    signal,
  });
  const maps: Numbers = result.heatmap({ percentile: 98 });
  const drawn = result.overlayOriginal(0, { colourMap: "viridis", channels: 4 });
  canvas.putImageData(new ImageData(new Uint8ClampedArray(drawn.data), drawn.width, drawn.height), 0, 0);
  const method = explainer.bundle.methods["smoothgrad"];
  console.log(method?.parameters["samples"]?.default, other.labels?.[0], result.predictions(0)[0]?.label);
  console.log(heatmap(prepare(picture, explainer.bundle.steps).rows).dims);
  await explainer.release();
  return maps.data;
}

export function why(error: unknown): string {
  return error instanceof BundleError ? "bundle" : error instanceof OnnxplainError ? error.message : "unknown";
}

// @ts-expect-error: `ort` is needed
void Explainer.open("honest.explain", {});
