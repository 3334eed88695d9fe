/** A single file: the whole method is one graph, so that a run of it for some images is all there is to do. */

/** What the graph gives, [N, T, …], as it is. */
export async function single(work) {
  const [maps] = await work.collect(["attribution"]);
  return maps;
}
