// A small client of inferway's prediction service: promises for calls, async iteration for streams, Float32Array in
// and out. The stubs are made from the .proto files when the module is loaded; nothing is generated or committed.

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
