/** What the system lets a process of Node have: processors, within the limits of its control group. */

/** Whether this is Node, or something that has its modules. */
export const IS_NODE = typeof globalThis.process?.versions?.node === "string";

/** Node's own modules, named by a variable so that bundlers for the browser don't look for them. */
export function nodeModules(...names) {
  return Promise.all(names.map((name) => import(/* @vite-ignore */ /* webpackIgnore: true */ `node:${name}`)));
}

/**
 * How many processors the machine has, and how many of them this process may keep busy: fewer where it is bound to some,
 * or its control group to a share of their time. A container with `--cpus 2.5` has two.
 */
export async function processors(root = "/") {
  const [os, fs] = await nodeModules("os", "fs");
  const read = (file) => fs.promises.readFile(`${root}${file}`, "utf8").catch(() => "");
  const shares = [];
  for (const [folder, version] of cpuGroups(await read("proc/self/cgroup"))) {
    const names = version === 2 ? ["cpu.max"] : ["cpu.cfs_quota_us", "cpu.cfs_period_us"];
    const texts = await Promise.all(names.map((name) => read(`${folder}/${name}`)));
    const [quota, period] = texts.join(" ").trim().split(/\s+/).map(Number); // "max 100000" where there is no limit
    if (quota > 0 && period > 0) shares.push(Math.floor(quota / period));
  }
  const allowed = Math.max(1, Math.min(os.availableParallelism(), ...shares));
  return { machine: Math.max(os.cpus().length, allowed), allowed };
}

/** The folders of a process's control groups for processors, up to the root, with their version. */
function cpuGroups(described) {
  const unified = "sys/fs/cgroup";
  // Inside a container the group's own path isn't mounted, and its limit is at the root.
  const folders = [
    [unified, 2],
    [`${unified}/cpu`, 1],
  ];
  for (const line of described.split("\n").filter(Boolean)) {
    const [, controllers, ...rest] = line.split(":");
    if (controllers && !controllers.split(",").includes("cpu")) continue;
    const steps = rest.join(":").split("/").filter(Boolean);
    const [root, version] = controllers ? [`${unified}/cpu`, 1] : [unified, 2];
    for (; steps.length; steps.pop()) folders.push([[root, ...steps].join("/"), version]);
  }
  return folders;
}
