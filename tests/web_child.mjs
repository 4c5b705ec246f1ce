// Runs the page's own modules outside a browser: what standard input asks for as JSON, answered on standard output.

import { readFileSync } from "node:fs";

const { folder, task, arguments: given } = JSON.parse(readFileSync(0, "utf8"));
const { melOf } = await import(`${folder}/mel.mjs`);
const { metadataOf } = await import(`${folder}/metadata.mjs`);

const floats = (path) => new Float32Array(new Uint8Array(readFileSync(path)).buffer);
const TASKS = {
  mels: ({ wave, specs }) => specs.map((spec) => {
    const { values, bands, frames } = melOf(floats(wave), spec);
    return { values: Buffer.from(values.buffer).toString("base64"), bands, frames };
  }),
  metadata: ({ path }) => Object.fromEntries(metadataOf(new Uint8Array(readFileSync(path)))),
};
try {
  console.log(JSON.stringify({ result: TASKS[task](given) }));
} catch (error) {
  console.log(JSON.stringify({ error: error.message }));
}
