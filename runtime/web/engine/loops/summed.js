/** The usual loop: attribution = finish(Σ total, Σ norm) over the method's step table. */

/** The finished sum [N, T, …] over the plan's steps. */
export const summed = (work) => work.sum();
