// A vocoder in an ONNX file, as `melvoc export` writes it, run by onnxruntime-web on the CPU.

import { checkSpec } from "./mel.mjs";
import { metadataOf } from "./metadata.mjs";

let runtime;

async function onnxruntime() {
  runtime ??= await import("./ort/ort.wasm.min.mjs").catch(() => {
    throw new Error("onnxruntime-web is not beside this page; docs/web/fetch.sh puts it there, then reload the page");
  });
  runtime.env.wasm.numThreads = 1; // more need headers that a plain server does not send
  runtime.env.wasm.proxy = true; // in a worker, so that the page stays usable meanwhile
  runtime.env.logLevel = "error";
  return runtime;
}

// `bytes` is a Uint8Array. Returns {name, licence, spec, sampleRate, synthesise}.
export async function loadVocoder(bytes, fileName) {
  const metadata = metadataOf(bytes);
  if (!metadata.has("melvoc.spec")) throw new Error(`${fileName} does not say what its mel is; export it with melvoc export`);
  const spec = JSON.parse(metadata.get("melvoc.spec"));
  checkSpec(spec);
  const ort = await onnxruntime();
  const session = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
  if (session.inputNames.length !== 1) {
    throw new Error(`${fileName} needs ${session.inputNames.slice(1).join(", ")} besides the mel, which this page does not have`);
  }
  if (session.outputNames.length !== 1) {
    throw new Error(`${fileName} gives ${session.outputNames.join(", ")}, not a sound; export it without --target sherpa`);
  }
  return {
    name: metadata.get("melvoc.name") ?? fileName,
    licence: metadata.get("melvoc.licence"),
    spec,
    sampleRate: Number(metadata.get("melvoc.sample_rate") ?? spec.sample_rate),
    synthesise: (mel) => synthesise(ort, session, mel),
  };
}

// The channels of the sound of a mel of `melOf`, each a Float32Array.
async function synthesise(ort, session, { values, bands, frames }) {
  const mel = new ort.Tensor("float32", values.slice(), [1, bands, frames]); // a copy: the worker keeps it
  const { data, dims } = (await session.run({ [session.inputNames[0]]: mel }))[session.outputNames[0]];
  const samples = dims.at(-1);
  return Array.from({ length: data.length / samples }, (_, channel) => data.subarray(channel * samples, (channel + 1) * samples));
}
