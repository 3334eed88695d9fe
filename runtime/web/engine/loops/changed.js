/** A call of explain with other targets, for loops that run another method's passes. */

/** The call as one call for each of the T targets, for methods whose path depends on the target. */
export async function eachTarget(work) {
  const chosen = await work.chosen();
  return Array.from({ length: chosen.count }, (_, target) => work.with({ asked: chosen.only(target) }));
}
