/** The little linear algebra that the methods need, in float64; matrices are row by row. */

/** The product [n, m] of matrices [n, k] and [k, m]. */
export function matrixProduct(a, b, n, k, m) {
  const found = new Float64Array(n * m);
  for (let row = 0; row < n; row++) {
    const line = found.subarray(row * m, (row + 1) * m);
    let middle = 0;
    // Four rows at a time: a line that is read and written once for them is what takes the time.
    for (; middle + 4 <= k; middle += 4) addFour(line, a, row * k + middle, b, middle * m, m);
    for (; middle < k; middle++) {
      const weight = a[row * k + middle];
      const from = middle * m;
      for (let column = 0; column < m; column++) line[column] += weight * b[from + column];
    }
  }
  return found;
}

function addFour(line, weights, at, b, from, m) {
  const [w0, w1, w2, w3] = [weights[at], weights[at + 1], weights[at + 2], weights[at + 3]];
  if (w0 === 0 && w1 === 0 && w2 === 0 && w3 === 0) return; // narrow blurs are mostly zeros
  const [one, two, three] = [from + m, from + 2 * m, from + 3 * m];
  for (let c = 0; c < m; c++) {
    line[c] += w0 * b[from + c] + w1 * b[one + c] + w2 * b[two + c] + w3 * b[three + c];
  }
}

/** A matrix [n, m] turned to [m, n]. */
export function transposed(a, n, m) {
  const found = new Float64Array(n * m);
  for (let row = 0; row < n; row++)
    for (let column = 0; column < m; column++) found[column * n + row] = a[row * m + column];
  return found;
}

/**
 * The least squares solution [n, r] of a matrix [m, n] and right sides [m, r], of several the shortest: what numpy's
 * lstsq gives. A QR factorisation, then the singular values of R by one-sided Jacobi rotations.
 */
export function leastSquares(matrix, sides, m, n, r) {
  if (n === 0) return new Float64Array(0);
  const [a, b] = [columnsOf(matrix, m, n), columnsOf(sides, m, r)];
  const rank = Math.min(m, n);
  triangular(a, b, rank);
  // Columns of R, each of `rank` numbers; V gathers the rotations.
  const work = a.map((column) => column.subarray(0, rank));
  const turns = a.map((_, column) => Float64Array.from({ length: n }, (__, row) => (row === column ? 1 : 0)));
  rotateApart(work, turns);
  const lengths = work.map(lengthOf);
  // numpy's lstsq: relative to the largest, the precision times the longer side.
  const least = Math.max(...lengths) * 2.220446049250313e-16 * Math.max(m, n);
  const found = new Float64Array(n * r);
  b.forEach((side, column) => {
    work.forEach((left, k) => {
      if (lengths[k] <= least || lengths[k] === 0) return;
      const weight = dot(left, side, rank) / lengths[k] ** 2;
      for (let row = 0; row < n; row++) found[row * r + column] += weight * turns[k][row];
    });
  });
  return found;
}

const columnsOf = (matrix, rows, columns) =>
  Array.from({ length: columns }, (_, column) =>
    Float64Array.from({ length: rows }, (__, row) => matrix[row * columns + column]),
  );

function dot(a, b, count, first = 0) {
  let sum = 0;
  for (let place = first; place < count; place++) sum += a[place] * b[place];
  return sum;
}

const lengthOf = (column) => Math.sqrt(dot(column, column, column.length));

/** Makes columns upper triangular by Householder's reflections, and reflects the right sides with them. */
function triangular(columns, sides, rank) {
  const m = columns[0].length;
  for (let k = 0; k < rank; k++) {
    const pivot = columns[k];
    const length = Math.sqrt(dot(pivot, pivot, m, k));
    if (length === 0) continue;
    const mirror = Float64Array.from(pivot);
    mirror[k] += pivot[k] < 0 ? -length : length;
    const square = dot(mirror, mirror, m, k);
    for (const column of [...columns.slice(k), ...sides]) {
      const weight = (2 * dot(mirror, column, m, k)) / square;
      if (weight !== 0) for (let row = k; row < m; row++) column[row] -= weight * mirror[row];
    }
    for (let row = k + 1; row < m; row++) pivot[row] = 0;
  }
}

/** Rotates pairs of columns until all are at right angles (Hestenes 1958); `turns` takes part in every rotation. */
function rotateApart(columns, turns) {
  for (let sweep = 0; sweep < 60; sweep++) {
    let turned = false;
    for (let p = 0; p < columns.length - 1; p++) {
      for (let q = p + 1; q < columns.length; q++) turned = rotate(columns, turns, p, q) || turned;
    }
    if (!turned) return;
  }
}

function rotate(columns, turns, p, q) {
  const [a, b] = [columns[p], columns[q]];
  const [alpha, beta, gamma] = [dot(a, a, a.length), dot(b, b, b.length), dot(a, b, a.length)];
  if (gamma === 0 || Math.abs(gamma) <= 1e-15 * Math.sqrt(alpha * beta)) return false;
  const zeta = (beta - alpha) / (2 * gamma);
  const tangent = (zeta < 0 ? -1 : 1) / (Math.abs(zeta) + Math.sqrt(1 + zeta * zeta));
  const cosine = 1 / Math.sqrt(1 + tangent * tangent);
  for (const [x, y] of [
    [a, b],
    [turns[p], turns[q]],
  ]) {
    for (let row = 0; row < x.length; row++) {
      const value = x[row];
      x[row] = cosine * (value - tangent * y[row]);
      y[row] = cosine * (y[row] + tangent * value);
    }
  }
  return true;
}

/** The first left singular vector, times its singular value, of a matrix [m, n]: the projection of its rows. */
export function firstProjection(matrix, m, n) {
  const small = Math.min(m, n);
  const tall = m > n;
  const turned = transposed(matrix, m, n);
  const gram = tall ? matrixProduct(turned, matrix, n, m, n) : matrixProduct(matrix, turned, m, n, m);
  let vector = dominant(gram, small);
  if (tall) return matrixProduct(matrix, vector, m, n, 1);
  const across = matrixProduct(turned, vector, n, m, 1);
  const length = lengthOf(across);
  vector = vector.map((value) => value * length);
  return vector;
}

/** The eigenvector of the largest eigenvalue of a matrix that has none below 0, of length 1. */
function dominant(gram, size) {
  let scaled = Float64Array.from(gram);
  // Squaring doubles how far the largest stands out: 2^12 steps of the power method at once, then single ones.
  for (let turn = 0; turn < 12; turn++) {
    const largest = scaled.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    if (largest === 0) return new Float64Array(size);
    scaled = scaled.map((value) => value / largest);
    scaled = matrixProduct(scaled, scaled, size, size, size);
  }
  let best = 0;
  for (let row = 1; row < size; row++) if (scaled[row * size + row] > scaled[best * size + best]) best = row;
  let vector = Float64Array.from({ length: size }, (_, row) => scaled[row * size + best]);
  for (let turn = 0; turn < 3; turn++) {
    const length = lengthOf(vector);
    if (length === 0) return vector;
    vector = matrixProduct(
      gram,
      vector.map((value) => value / length),
      size,
      size,
      1,
    );
  }
  const length = lengthOf(vector);
  return length === 0 ? vector : vector.map((value) => value / length);
}
