// A small client of inferway's prediction service: promises for calls, async iteration for streams, Float32Array in
// and out. The stubs are made from the .proto files when the module is loaded; nothing is generated or committed.

import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

const directory = (path) => fileURLToPath(new URL(path, import.meta.url));
const definition = loadSync("inferway/prediction/v1/prediction_service.proto", {
  includeDirs: [directory("../../protos")],
  keepCase: true,
  longs: Number,
  enums: String,
  oneofs: true,
});
const { PredictionService } = grpc.loadPackageDefinition(definition).inferway.prediction.v1;

// Opens a client. `target` is host:port.
export function connect(target) {
  return new PredictionService(target, grpc.credentials.createInsecure());
}

// Returns the tensor `name` of a Float32Array; `shape` has the batch dimension first.
export function float32(name, shape, values) {
  return { name, datatype: "DATA_TYPE_FP32", shape, raw: Buffer.from(values.buffer, values.byteOffset, values.byteLength) };
}

// Returns the numbers of a tensor of floats or of 64-bit integers.
export function values({ name, datatype, raw }) {
  const bytes = raw.buffer.slice(raw.byteOffset, raw.byteOffset + raw.byteLength); // typed arrays need alignment
  switch (datatype) {
    case "DATA_TYPE_FP32":
      return new Float32Array(bytes);
    case "DATA_TYPE_INT64":
      return new BigInt64Array(bytes);
    default:
      throw new Error(`${name} is ${datatype}, which this example does not read`);
  }
}

// Asks for one prediction. Rejects with gRPC's error: `code` is a grpc.status, `details` says what to do.
export function predict(client, request, { timeoutMs = 10_000 } = {}) {
  return new Promise((resolve, reject) => {
    const deadline = Date.now() + timeoutMs;
    client.Predict(request, { deadline }, (error, response) => (error ? reject(error) : resolve(response)));
  });
}

// Sends each item of `items` (arrays of tensors) on one stream and yields { index, prediction | error } as completed.
// Never has more items unanswered than the server permits.
export async function* stream(client, target, items, { maxInFlight = 0 } = {}) {
  const call = client.StreamPredict();
  const source = items[Symbol.iterator]();
  let index = 0;
  const sendNext = () => {
    const { value: inputs, done } = source.next();
    if (done) call.end();
    else call.write({ item: { id: index++, inputs } });
  };
  call.write({ open: { target, max_in_flight: maxInFlight } });
  try {
    for await (const { opened, result } of call) {
      if (opened) for (let room = opened.max_in_flight; room > 0 && !call.writableEnded; room--) sendNext();
      if (!result) continue;
      if (!call.writableEnded) sendNext();
      yield { index: result.id, prediction: result.prediction, error: result.error };
    }
  } finally {
    call.cancel();
  }
}

// Sends each of `items` (arrays of tensors) to a stateful model, which applies them one after the other, and yields
// { index, prediction | error } in order, each once. When the connection is lost, the session is resumed: `onResume` is
// called, what was applied is not applied again, and what the caller has not taken comes again. The same happens when a
// server wants to leave: it says so, and some seconds later it ends the stream.
export async function* session(client, target, items, { patienceMs = 30_000, onResume = () => {} } = {}) {
  const waiting = items[Symbol.iterator]();
  const unanswered = new Map(); // inputs by id; ids count from 1
  let [token, taken, sent, exhausted, lostAt] = ["", 0, 0, false, 0];
  for (;;) {
    const call = client.StreamPredict();
    const resume = token ? { token, acknowledged_item: taken } : undefined;
    call.write({ open: { target, acknowledges_results: true, resume } });
    let [received, room] = [0, 0];
    const fill = () => {
      while (room > 0 && !exhausted) {
        const { value: inputs, done } = waiting.next();
        exhausted = done;
        if (done) break;
        unanswered.set(++sent, inputs);
        call.write({ item: { id: sent, inputs } });
        room--;
      }
      if (!exhausted || unanswered.size > 0) return;
      call.write({ acknowledge: { results: received, ends_session: true } });
      call.end();
    };
    try {
      for await (const { opened, result } of call) {
        if (opened) {
          if (!opened.session) throw new Error(`${target.endpoint} keeps no state; use stream`);
          if (token) onResume();
          token = opened.session.resume_token;
          room = opened.max_in_flight - unanswered.size;
          for (const [id, inputs] of unanswered) {
            if (id > opened.session.applied_item) call.write({ item: { id, inputs } });
          }
          fill();
        }
        if (!result) continue;
        lostAt = 0;
        if (result.id > taken) {
          taken = result.id;
          yield { index: result.id - 1, prediction: result.prediction, error: result.error };
          unanswered.delete(result.id);
        }
        call.write({ acknowledge: { results: ++received } });
        room++;
        fill();
      }
      if (exhausted && unanswered.size === 0) return;
    } catch (error) {
      lostAt ||= Date.now();
      if (exhausted && unanswered.size === 0) return;
      if (error.code !== grpc.status.UNAVAILABLE || Date.now() - lostAt > patienceMs) throw error;
      await sleep(50 + 100 * Math.random());
    } finally {
      call.cancel();
    }
  }
}
