/** The nearest of some names, as Python's difflib finds it (Ratcliff and Obershelp's measure). */

/** The nearest of `names` to `word` with a likeness of at least `cutoff`, or null. */
export function closeMatch(word, names, cutoff) {
  let best = null;
  let bestRatio = -1;
  for (const name of names) {
    const ratio = likeness(Array.from(name), Array.from(word));
    const better = ratio > bestRatio || (ratio === bestRatio && name > best);
    if (ratio >= cutoff && better) [best, bestRatio] = [name, ratio];
  }
  return best;
}

function likeness(a, b) {
  const length = a.length + b.length;
  return length === 0 ? 1 : (2 * matching(a, b, 0, a.length, 0, b.length)) / length;
}

/** How many letters lie in the longest common block, and in those to its left and right. */
function matching(a, b, aLow, aHigh, bLow, bHigh) {
  const [i, j, size] = longestBlock(a, b, aLow, aHigh, bLow, bHigh);
  if (size === 0) return 0;
  return size + matching(a, b, aLow, i, bLow, j) + matching(a, b, i + size, aHigh, j + size, bHigh);
}

/** The longest block a[i..] = b[j..], of several the first in a, then in b. */
function longestBlock(a, b, aLow, aHigh, bLow, bHigh) {
  let best = [aLow, bLow, 0];
  let lengths = new Map();
  for (let i = aLow; i < aHigh; i++) {
    const here = new Map();
    for (let j = bLow; j < bHigh; j++) {
      if (a[i] !== b[j]) continue;
      const size = (lengths.get(j - 1) ?? 0) + 1;
      here.set(j, size);
      if (size > best[2]) best = [i - size + 1, j - size + 1, size];
    }
    lengths = here;
  }
  return best;
}
