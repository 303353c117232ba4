// Which arm of an endpoint a unit (an affinity key) gets: as every gateway decides it, so that a program can know
// beforehand, or split what it does by the same hash. The salt and the arms are those of the endpoint, in its order
// (`inferway endpoint show`). tests/golden/assignment.json says what must come out.

import { xxhash3 } from "hash-wasm";

const BUCKETS = 10_000n;

// Resolves to the bucket of `unit`, 0 to 9,999.
export async function bucketOf(salt, unit) {
  const hash = BigInt(`0x${await xxhash3(salt + unit)}`); // of the UTF-8
  return Number((hash * BUCKETS) >> 64n);
}

// Returns the index of the arm that owns `bucket`; `weights` are the arms' in basis points and sum to 10,000.
export function armOf(weights, bucket) {
  let end = 0;
  return weights.findIndex((weight) => bucket < (end += weight));
}
