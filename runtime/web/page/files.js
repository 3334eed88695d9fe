/** What is dropped, pasted or picked: pictures apart from the files of a network. */

import { isPicture } from "./pictures.js";

/** The files of a drop, those in folders too, each with the path that it had. */
export async function droppedFiles(transfer) {
  // The list of a drop is emptied as soon as its event is over: everything is asked for at once.
  const items = [...transfer.items].filter((item) => item.kind === "file");
  const found = await Promise.all(
    items.map((item) => {
      const entry = item.webkitGetAsEntry?.();
      const file = item.getAsFile();
      return entry ? filesUnder(entry, "") : [{ file, path: file.name }];
    }),
  );
  return found.flat();
}

async function filesUnder(entry, above) {
  const path = above + entry.name;
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    return [{ file, path }];
  }
  const reader = entry.createReader();
  const found = [];
  // A reader gives its entries in parts, and an empty part at the end.
  for (let part = [null]; part.length; found.push(...part)) {
    part = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
  }
  return (await Promise.all(found.map((each) => filesUnder(each, `${path}/`)))).flat();
}

/** The files of an input element or a clipboard. */
export function listedFiles(files) {
  return [...files].map((file) => ({ file, path: file.webkitRelativePath || file.name }));
}

/** Files sorted into pictures and networks; each network is the files of one folder, or a single file. */
export function sorted(files) {
  const visible = files.filter(({ path }) => !path.split("/").some((part) => part.startsWith(".")));
  const pictures = visible.filter(({ file }) => isPicture(file)).map(({ file }) => file);
  const folders = new Map();
  for (const { file, path } of visible.filter((each) => !isPicture(each.file))) {
    const folder = path.split("/").slice(0, -1).join("/");
    // Errors call files by their path; where the browser doesn't tell the folder, it needs some name.
    const webkitRelativePath = folder ? path : `the bundle/${path}`;
    folders.set(folder, [...(folders.get(folder) ?? []), { name: file.name, webkitRelativePath, bytes: file }]);
  }
  return { pictures, networks: [...folders].flatMap(([folder, each]) => networksOf(folder, each)) };
}

function networksOf(folder, files) {
  const isBundle = files.some(({ name }) => name === "explainer.json");
  if (isBundle) return [{ name: folderName(folder) || "network", files }];
  const models = files.filter(({ name }) => name.endsWith(".onnx"));
  // Several .onnx files with nothing else are single files; with something else, a bundle that lacks its description.
  if (models.length === files.length) {
    return models.map(({ name, bytes }) => ({ name: stem(name), files: [{ name, bytes }] }));
  }
  return [{ name: folderName(folder) || files[0].name, files }];
}

const folderName = (folder) => stem(folder.split("/").pop());
const stem = (name) => name.replace(/\.(explain|onnx)$/, "");
