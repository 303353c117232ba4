// node assignment_check.mjs: compares clients/node/assignment.mjs with assignment.json, and prints how many agree.

import { readFileSync } from "node:fs";
import { armOf, bucketOf } from "../../clients/node/assignment.mjs";

const { tables, vectors } = JSON.parse(readFileSync(new URL("assignment.json", import.meta.url), "utf8"));
let agreeing = 0;
for (const [salt, unit, , bucket, arms] of vectors) {
  const found = await bucketOf(salt, unit);
  const foundArms = tables.map((weights) => armOf(weights, found));
  if (found === bucket && foundArms.join() === arms.join()) agreeing++;
  else console.error(JSON.stringify({ salt, unit, bucket, found, arms, foundArms }));
}
console.log(`${agreeing} of ${vectors.length} agree`);
