// node session.mjs [--target HOST:PORT] [--endpoint NAME] [--input NAME] [--width N] [--items N] [--pulls N]
//
// Streams ones to a stateful model through a cable that is pulled while they travel. The session is resumed each time,
// and every item is applied once: a model that adds up what it gets ends with the number of items.

import { once } from "node:events";
import net from "node:net";
import { parseArgs } from "node:util";
import { connect, float32, session, values } from "./inferway.mjs";

const { values: options } = parseArgs({
  options: {
    target: { type: "string", default: "127.0.0.1:8001" },
    endpoint: { type: "string", default: "eta" },
    input: { type: "string", default: "x" },
    width: { type: "string", default: "6" },
    items: { type: "string", default: "200" },
    pulls: { type: "string", default: "3" },
  },
});
const width = Number(options.width);
const count = Number(options.items);
const pullEvery = Math.floor(count / (Number(options.pulls) + 1));

// Forwards a local port to `target`, until it is pulled; what connects afterwards gets through again.
async function cable(target) {
  const [host, port] = target.split(":");
  const sockets = new Set();
  const server = net.createServer((near) => {
    const far = net.connect(Number(port), host);
    near.pipe(far).pipe(near);
    for (const socket of [near, far]) {
      sockets.add(socket);
      socket.on("error", () => {}).on("close", () => (sockets.delete(socket), near.destroy(), far.destroy()));
    }
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const pull = () => sockets.forEach((socket) => socket.destroy());
  return { target: `127.0.0.1:${server.address().port}`, pull, close: () => (server.close(), pull()) };
}

const plugged = await cable(options.target);
const client = connect(plugged.target);
try {
  const items = Array.from({ length: count }, () => [float32(options.input, [1, width], new Float32Array(width).fill(1))]);
  let answered = 0;
  let resumed = 0;
  let last;
  for await (const result of session(client, { endpoint: options.endpoint }, items, { onResume: () => (resumed += 1) })) {
    if (result.error) throw new Error(`item ${result.index}: ${result.error.message}`);
    if (result.index !== answered++) throw new Error(`item ${result.index} came as number ${answered}`);
    if (answered < count && answered % pullEvery === 0) plugged.pull();
    last = result.prediction;
  }
  console.log(`${answered} of ${count} answered, in order, each once; resumed ${resumed} times`);
  console.log(last.model_version);
  for (const output of last.outputs) console.log(`  ${output.name} [${output.shape}] ${values(output)}`);
} catch (error) {
  console.error(`error: ${error.details ?? error.message}`);
  process.exitCode = 1;
} finally {
  client.close();
  plugged.close();
}
