// node predict.mjs [--target HOST:PORT] [--endpoint NAME] [--input NAME] [--width N] [--items N]
//
// Asks a model with one FP32 input of shape [rows, width]: once by a call, then by a stream.

import { parseArgs } from "node:util";
import { connect, float32, predict, stream, values } from "./inferway.mjs";

const { values: options } = parseArgs({
  options: {
    target: { type: "string", default: "127.0.0.1:8001" },
    endpoint: { type: "string", default: "digits" },
    input: { type: "string", default: "image" },
    width: { type: "string", default: "64" },
    items: { type: "string", default: "100" },
  },
});
const width = Number(options.width);
const madeUp = () => [float32(options.input, [1, width], Float32Array.from({ length: width }, Math.random))];
const target = { endpoint: options.endpoint };

const client = connect(options.target);
try {
  const { model_version, outputs } = await predict(client, { target, inputs: madeUp() });
  console.log(model_version);
  for (const output of outputs) console.log(`  ${output.name} [${output.shape}] ${values(output)}`);

  const items = Array.from({ length: Number(options.items) }, madeUp);
  const started = performance.now();
  let answered = 0;
  for await (const { index, error } of stream(client, target, items)) {
    if (error) throw new Error(`item ${index}: ${error.message}`);
    answered += 1;
  }
  const milliseconds = performance.now() - started;
  console.log(`stream: ${answered} of ${items.length} answered in ${milliseconds.toFixed(0)} ms`);
} catch (error) {
  console.error(`error: ${error.details ?? error.message}`);
  process.exitCode = 1;
} finally {
  client.close();
}
