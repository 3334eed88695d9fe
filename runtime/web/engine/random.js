/**
 * The uniforms of the exported graphs, bit for bit.
 *
 * A value depends on (seed, draw, index of the element) alone. The generator is counter-based and its integers stay
 * below 2^21; see random.py for how it is made.
 */

import { ParameterError, shortNumber } from "./errors.js";
import { product } from "./numbers.js";

/** Seeds and draw numbers are below this. */
export const LIMIT = 2 ** 20;
const PRIMES = [719, 701, 683];
const LEVELS = PRIMES[0] * PRIMES[1];
const SEED_OFFSET = 101;
/** What each round adds to an element's residue before cubing, for each prime: any that make 0 an ordinary index. */
const ELEMENT_OFFSETS = [
  [85, 170],
  [145, 290],
  [205, 410],
];
const STEP = Math.fround(1 / LEVELS);

/** y·(y² mod p) for each prime p and every y below 2p: not reduced, since the sums of two of them are. */
const CUBES = PRIMES.map((prime) => Int32Array.from({ length: 2 * prime }, (_, y) => cube(y, prime)));
/** What the two rounds make of a residue, for each prime. */
const ROUNDS = PRIMES.map((prime, which) =>
  ELEMENT_OFFSETS[which].map((offset) =>
    Int32Array.from({ length: prime }, (_, residue) => cube(residue + offset, prime) % prime),
  ),
);

/** Uniform noise in (0, 1), a Float32Array [draws.length, ...shape]; ParameterError for a seed or draw out of range. */
export function uniform(seed, draws, shape) {
  const size = product(shape);
  const found = new Float32Array(draws.length * size);
  const elements = elementsOf(size);
  const [one, two, three] = CUBES;
  draws.forEach((draw, row) => {
    const [first, second, third] = stateOf(seed, draw);
    for (let index = 0; index < size; index++) {
      const fine = (two[elements[3 * index + 1] + second] + three[elements[3 * index + 2] + third]) % PRIMES[1];
      const coarse = (one[elements[3 * index] + first] + fine) % PRIMES[0];
      found[row * size + index] = (coarse * PRIMES[1] + fine + 0.5) * STEP;
    }
  });
  return found;
}

let kept = new Int16Array(0);

/** The residues of the first `size` elements, three for each; those of the largest array so far are kept. */
function elementsOf(size) {
  if (kept.length >= 3 * size) return kept;
  const elements = new Int16Array(3 * size);
  for (let index = 0; index < size; index++) {
    const [a, b, c] = [ROUNDS[0][0][index % 719], ROUNDS[1][0][index % 701], ROUNDS[2][0][index % 683]];
    const first = (a + b) % PRIMES[0];
    elements[3 * index] = ROUNDS[0][1][first];
    elements[3 * index + 1] = ROUNDS[1][1][(b + c) % PRIMES[1]];
    elements[3 * index + 2] = ROUNDS[2][1][(c + first) % PRIMES[2]];
  }
  kept = elements;
  return elements;
}

function stateOf(seed, draw) {
  const [key, counter] = [checked("seed", seed), checked("draw", draw)];
  const outer = PRIMES.map((prime) => cube((key % prime) + SEED_OFFSET, prime) % prime);
  const inner = PRIMES.map((prime, which) => cube(outer[which] + outer[(which + 1) % 3], prime) % prime);
  const state = PRIMES.map((prime, which) => cube((counter % prime) + inner[which], prime) % prime);
  return mixed(PRIMES.map((prime, which) => cube(state[which] + outer[which], prime) % prime));
}

/** Each residue plus its neighbour's, one after the other; what differs before differs after. */
function mixed(residues) {
  const first = (residues[0] + residues[1]) % PRIMES[0];
  return [first, (residues[1] + residues[2]) % PRIMES[1], (residues[2] + first) % PRIMES[2]];
}

function cube(y, prime) {
  return y * ((y * y) % prime);
}

function checked(kind, value) {
  if (Number.isInteger(value) && value >= 0 && value < LIMIT) return value;
  throw new ParameterError(
    `${kind} ${shortNumber(value)} is not a whole number from 0 to ${LIMIT - 1}; choose one that is`,
  );
}
