/**
 * Explains what a neural network saw, where the network runs: in the browser (onnxruntime-web) or in Node
 * (onnxruntime-node), with the bundles that `onnxplain export` writes. Maps equal those of the Python engine up to
 * rounding. Nothing that is handed in leaves the process.
 */

/** Numbers with their axes, row by row: element [i, j] of `dims` [n, m] is `data[i * m + j]`. */
export interface Numbers<Data = Float32Array> {
  data: Data;
  dims: number[];
}

/** A picture as bytes, row by row, its channels together: 1 (grey), 3 (RGB) or 4 (RGBA, whose alpha is ignored). */
export interface Picture {
  data: Uint8Array | Uint8ClampedArray;
  width: number;
  height: number;
  /** Found from the length of `data` where it isn't given; an ImageData of a canvas can be handed in as it is. */
  channels?: 1 | 3 | 4;
  /** What errors call it. */
  name?: string;
}

/** Images as the network takes them: one image in its own shape, such as [3, 224, 224], or a batch [N, 3, 224, 224]. */
export interface ImageNumbers {
  data: Float32Array | Float64Array | Uint8Array | Int32Array | BigInt64Array | number[];
  dims: readonly number[];
  name?: string;
}

/** What a network with several inputs takes: its inputs' names, and the numbers of one image (or a batch) for each. */
export interface NamedInputs {
  inputs: { [name: string]: Picture | ImageNumbers };
}

export type Image = Picture | ImageNumbers | NamedInputs;
export type Target = number | string | null;

/** A file of a bundle that is already in memory; a File of a drop or a file dialogue can be handed in as it is. */
export type BundleFile = { name: string; bytes: Uint8Array | ArrayBuffer } | File;

/**
 * Where a bundle is: the address of its folder or of a single .onnx file (relative ones are resolved against the page),
 * a path in Node, or its files by name.
 */
export type Source = string | URL | BundleFile | Iterable<BundleFile> | Map<string, Uint8Array | ArrayBuffer>;

export interface OpenOptions {
  /** The module onnxruntime-web or onnxruntime-node (or onnxruntime-web/webgpu), imported by the caller. */
  ort: unknown;
  /** onnxruntime's execution providers, such as ["webgpu"]; the default is its CPU, in the browser WebAssembly. */
  providers?: (string | { name: string; [option: string]: unknown })[];
  /** Whether files are compared with their SHA-256: true unless given. Of an address, each when it is fetched. */
  verify?: boolean;
  /** How many rows (images times steps) one run takes where memory allows; else what suits the network. */
  rows?: number;
  /**
   * Threads of one run, of onnxruntime-node: as many as the processors that this process may use, unless given.
   * onnxruntime-web has ort.env.wasm.numThreads for it.
   */
  threads?: number;
  /** What fetches files from an address: globalThis.fetch unless given. */
  fetch?: (address: string) => Promise<Response>;
  /** Called while files are fetched; `total` is null where the server doesn't say. */
  onLoad?: (event: { file: string; loaded: number; total: number | null }) => void;
  /** Ends the opening. */
  signal?: AbortSignal;
}

export type Value = number | boolean | string | null | number[] | Numbers<ArrayLike<number> | ArrayLike<bigint>>;

export interface PartialMap {
  /** The map from the steps added until now, zeros for images that haven't begun; valid during the call only. */
  readonly attribution: Numbers;
  /** The same to look at, as Result.heatmap; null where the input is no picture. */
  heatmap(options?: HeatmapOptions): Numbers | null;
  /** The images of which something new is known: from `first` up to, and without, `past`. */
  readonly first: number;
  readonly past: number;
}

export interface ExplainOptions {
  /** The method's name, as in `explainer.bundle.methods`; "gradient" unless given. */
  method?: string;
  /**
   * null: each image's top class. A class's number or name: for all images. A list: one for each image. A list of
   * lists: several for each image; the result has an axis for them then.
   */
  targets?: Target | Target[] | Target[][];
  /** In place of `targets`: so many best classes of each image. */
  top?: number;
  /** The method's parameters by name; those that aren't named have the bundle's defaults. */
  parameters?: { [name: string]: Value };
  /** "logits" or "probabilities", for methods that take scores of changed pictures. */
  score?: "logits" | "probabilities";
  /** For networks without classes: which weighted sum of the output is explained, [*output] or [N, *output]. */
  cotangent?: Numbers<ArrayLike<number>>;
  /** What the call may add to the process: bytes, "500MB" or "2GB". */
  memory?: number | string;
  /** Called after every run with the share of the work that is done, 0 to 1. */
  onProgress?: (share: number) => void;
  /** Called after runs with the map so far; methods that aren't a sum over steps may never call it. */
  onPartial?: (partial: PartialMap) => void;
  /** Ends the call after the run that is under way; explain then rejects with the signal's reason. */
  signal?: AbortSignal;
}

export interface HeatmapOptions {
  /** What becomes 1, of each map's numbers: 99 unless given. */
  percentile?: number;
  /** What the percentile is between two numbers: a point between them, or the smaller one. */
  statistic?: "linear" | "lower";
  /** How the channels become one number a pixel. */
  reduction?: "absolute_sum" | "absolute_maximum" | "signed_sum" | "mean";
}

export interface OverlayOptions extends HeatmapOptions {
  /** "inferno" unless given; see COLOUR_MAPS. */
  colourMap?: string;
  /** How strongly the colours cover the picture, 0 to 1: 0.85 unless given. */
  strength?: number;
  /** 4 adds an opaque alpha, for ImageData; 3 unless given. */
  channels?: 3 | 4;
}

export interface DrawnPicture {
  data: Uint8ClampedArray;
  width: number;
  height: number;
  channels: 3 | 4;
}

export interface Prediction {
  target: number;
  label: string;
  score: number;
  probability: number;
}

/**
 * Maps of N images by one method. Where several targets were asked for, axes and lists have a second axis T for them.
 */
export class Result {
  /** Raw and signed, [N, (T,) …] in the network's own layout; methods that change pictures have one channel. */
  readonly attribution: Numbers;
  /** The network's scores, [N, classes]. */
  readonly scores: Numbers;
  /** What its activation makes of them, [N, classes]. */
  readonly probabilities: Numbers;
  /** The explained classes: one for each image, or a list for each. */
  readonly targets: number[] | number[][];
  /** Their names. */
  readonly labels: string[] | string[][];
  readonly method: string;
  /** All parameters, the defaults too. */
  readonly parameters: { [name: string]: unknown };
  /** "NCHW", "NHWC" or null. */
  readonly layout: string | null;
  readonly measures: "sensitivity" | "contribution" | "importance";
  /** How many rows the network was run on for each image. */
  readonly steps: number;
  /** How the result was made, as plain data for JSON. */
  readonly provenance: { [name: string]: unknown };
  /** Whether the maps have rows and columns, so that they can be drawn. */
  readonly hasPictures: boolean;
  /** The number of images. */
  readonly length: number;
  /** The picture of an image as the network saw it, RGB or RGBA; null where that isn't known. */
  seen(index: number, channels?: 3 | 4): DrawnPicture | null;
  /** Maps to look at, [N, (T,) H, W] in 0..1: the sum of |a| over channels, from minimum to 99th percentile. */
  heatmap(options?: HeatmapOptions): Numbers;
  /** Maps with their sign, [N, (T,) H, W] in −1..1. */
  signed(percentile?: number): Numbers;
  /** The maps on their pictures as the network saw them, bytes [N, (T,) H, W, channels]. */
  overlay(options?: OverlayOptions): Numbers<Uint8ClampedArray>;
  /** One map on its picture as it was handed in, of its own size; `target` counts the targets of the image. */
  overlayOriginal(index: number, options?: OverlayOptions & { target?: number }): DrawnPicture;
  /** The best classes of one image. */
  predictions(index: number, count?: number): Prediction[];
}

export interface Parameter {
  readonly name: string;
  readonly kind: "int" | "float" | "bool" | "size" | "choice" | "image" | "array" | "layer";
  readonly default: unknown;
  readonly minimum: number | null;
  readonly maximum: number | null;
  readonly help: string;
  readonly choices: readonly string[];
}

export interface Method {
  readonly name: string;
  readonly graph: string;
  readonly plan: string;
  readonly finish: string;
  readonly loop: string;
  readonly beside: readonly string[];
  readonly explains: "logits" | "probabilities";
  readonly measures: "sensitivity" | "contribution" | "importance";
  readonly about: string;
  readonly parameters: { readonly [name: string]: Parameter };
}

/** A bundle's description, explainer.json. */
export interface Bundle {
  /** Where it was opened from. */
  readonly path: string;
  readonly name: string;
  /** The SHA-256 of explainer.json, which holds those of all other files. */
  readonly sha256: string;
  readonly version: string;
  readonly source: { readonly [name: string]: unknown };
  readonly inputs: readonly { name: string; dtype: string; shape: (number | string)[]; layout: string | null }[];
  /** The explained input. */
  readonly image: { name: string; dtype: string; shape: (number | string)[]; layout: string | null };
  /** The explained output. */
  readonly scores: {
    name: string;
    shape: (number | string)[];
    classes: number | null;
    activation: "softmax" | "sigmoid" | "none";
    labels: string[] | null;
  };
  readonly steps: readonly { readonly [name: string]: unknown }[];
  readonly methods: { readonly [name: string]: Method };
  readonly layers: readonly { name: string; default: boolean; [name: string]: unknown }[];
  /** Of a single file, what is baked in; null of a bundle. */
  readonly single: {
    method: string;
    parameters: { [name: string]: unknown };
    free: string[];
    rows: number;
    pictureInput: boolean;
    pictureOutput: boolean;
  } | null;
}

/** Explains images with the methods of one bundle. */
export class Explainer {
  /** Opens a bundle or a single file; rejects with BundleError where it is missing, altered or too new. */
  static open(source: Source, options: OpenOptions): Promise<Explainer>;
  readonly bundle: Bundle;
  /** The names of the methods that this engine can run as they are, without `segments` to be given and the like. */
  readonly methods: string[];
  /** The classes' names, or null. */
  readonly labels: string[] | null;
  /** The maps of one image or several by one method. */
  explain(images: Image | Image[], options?: ExplainOptions): Promise<Result>;
  /** The network's scores, [N, classes]. */
  scores(images: Image | Image[]): Promise<Numbers>;
  /** The best classes of each image. */
  predict(images: Image | Image[], count?: number): Promise<Prediction[][]>;
  /** Pictures as the network takes them, and as it sees them. */
  prepare(picture: Picture): Prepared;
  /** Opens a method's graph before it is needed, so that the first map is faster. */
  warm(method: string): Promise<void>;
  /** Frees the sessions; the explainer opens them again when it is used again. */
  release(): Promise<void>;
}

export interface Prepared {
  /** [C, H, W] or [H, W, C]. */
  rows: Numbers;
  /** RGB bytes [H, W, 3]. */
  seen: Numbers<Uint8Array>;
  /** The part of the original that `seen` covers: top, left, bottom, right in its pixels. */
  box: [number, number, number, number];
}

/** A picture as the steps of a bundle's preprocessing make it. */
export function prepare(picture: Picture, steps: readonly object[]): Prepared;
/** [..., H, W] in 0..1 of attributions [..., C, H, W] ("NCHW") or [..., H, W, C] ("NHWC"). */
export function heatmap(attribution: Numbers, layout?: string, options?: HeatmapOptions): Numbers;
/** [..., H, W] in −1..1. */
export function signedMap(attribution: Numbers, layout?: string, percentile?: number): Numbers;
/** A picture [H, W, 3] in darkened grey with a map [H, W] (0..1) glowing over it. */
export function overlay(
  seen: Numbers<Uint8Array | Uint8ClampedArray>,
  heat: Numbers,
  options?: OverlayOptions,
): Numbers<Uint8ClampedArray>;
/** The same on the picture as it was handed in; `box` is the part of it that the map covers. */
export function overlayOriginal(
  original: Numbers<Uint8Array | Uint8ClampedArray>,
  heat: Numbers,
  box: readonly number[],
  options?: OverlayOptions,
): Numbers<Uint8ClampedArray>;
/** A picture [H, W, 3] in pale grey under the colours of `share` [H, W] (−1..1): red speaks for the target. */
export function signedOverlay(
  seen: Numbers<Uint8Array | Uint8ClampedArray>,
  share: Numbers,
  options?: { strength?: number; channels?: 3 | 4 },
): Numbers<Uint8ClampedArray>;
/** RGB bytes [..., 3] for numbers in 0..1. */
export function colours(heat: Numbers, colourMap?: string): Numbers<Uint8ClampedArray>;
/** RGB bytes [..., 3] for numbers in −1..1: blue, white at 0, red. */
export function diverging(share: Numbers): Numbers<Uint8ClampedArray>;
export const COLOUR_MAPS: readonly string[];
export const VERSION: string;

/** Base of all errors that the caller can cause; its text says what happened, where, and what to do. */
export class OnnxplainError extends Error {}
export class ModelError extends OnnxplainError {}
/** The bundle is missing, altered, incomplete, or newer than this reader. */
export class BundleError extends OnnxplainError {}
/** A picture doesn't fit the network. */
export class PictureError extends OnnxplainError {}
/** An unknown method, parameter or target, or a value out of range. */
export class ParameterError extends OnnxplainError {}
/** The asked-for execution provider isn't there. */
export class DeviceError extends OnnxplainError {}
