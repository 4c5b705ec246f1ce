// The page: a vocoder and a sound are chosen or dropped; whenever both are there, the sound goes to its mel and back.

import { melOf } from "./mel.mjs";
import { decode, wav } from "./sound.mjs";
import { loadVocoder } from "./vocoder.mjs";

const find = (id) => document.getElementById(id);
const DEEP = { ln: 9.2, log10: 4, db: 80 }; // of each logarithm of magnitudes, what the pictures show below the loudest
let vocoder, sound, turn = 0;

function say(text, wrong = false) {
  const status = find("status");
  status.textContent = text;
  status.classList.toggle("wrong", wrong);
}

async function take(file) {
  try {
    if (file.name.toLowerCase().endsWith(".onnx")) {
      say(`Reading ${file.name} …`);
      vocoder = await loadVocoder(new Uint8Array(await file.arrayBuffer()), file.name);
      const { spec, licence } = vocoder;
      const of = licence ? `licence ${licence}` : "licence unknown";
      find("vocoder-name").textContent = `${vocoder.name}: ${spec.n_mels} bands, ${vocoder.sampleRate} Hz, ${of}`;
    } else {
      sound = file;
      find("sound-name").textContent = file.name;
    }
  } catch (error) {
    say(`${file.name}: ${error.message}`, true);
    return;
  }
  if (!vocoder || !sound) {
    say(vocoder ? "Now choose a sound." : "Now choose a vocoder.");
  } else {
    await copy().catch((error) => say(`${sound.name}: ${error.message || "not a sound that this browser decodes"}`, true));
  }
}

async function copy() {
  say("Working …");
  const mine = ++turn, { spec, sampleRate } = vocoder;
  const { wave, cut } = await decode(await sound.arrayBuffer(), spec.sample_rate);
  const mel = melOf(wave, spec), begun = performance.now(), channels = await vocoder.synthesise(mel);
  const seconds = (performance.now() - begun) / 1000, length = wave.length / spec.sample_rate;
  if (mine !== turn) return; // something else has been chosen meanwhile
  const made = channels.map((channel) => channel.subarray(0, Math.ceil(length * sampleRate)));
  const again = await decode(await wav(made, sampleRate).arrayBuffer(), spec.sample_rate);
  const loudest = mel.values.reduce((a, b) => Math.max(a, b), -Infinity);
  const deep = spec.log === "log1p" ? loudest || 1 : DEEP[spec.log] * (spec.log === "db" ? 1 : spec.power);
  show("original", [wave], spec.sample_rate, mel, spec, [loudest - deep, loudest]);
  show("copy", made, sampleRate, melOf(again.wave, spec), spec, [loudest - deep, loudest]);
  find("results").hidden = false;
  say(`${length.toFixed(1)} s of sound${cut ? " (the beginning)" : ""} in ${seconds.toFixed(1)} s.`);
}

function show(id, channels, rate, mel, spec, [low, high]) {
  const audio = find(`${id}-audio`), canvas = find(`${id}-mel`);
  URL.revokeObjectURL(audio.src);
  audio.src = URL.createObjectURL(wav(channels, rate));
  const { values, bands, frames } = mel, span = `${((frames * spec.hop_length) / spec.sample_rate).toFixed(1)} s`;
  [canvas.width, canvas.height] = [frames, bands];
  canvas.setAttribute("aria-label", `Mel spectrogram, ${span}, ${bands} bands from ${spec.f_min} to ${spec.f_max} Hz`);
  const context = canvas.getContext("2d"), image = context.createImageData(frames, bands);
  for (let band = 0; band < bands; band++) {
    for (let t = 0; t < frames; t++) {
      const level = Math.max(0, Math.min(1, (values[band * frames + t] - low) / (high - low)));
      image.data.set(colour(level), 4 * ((bands - 1 - band) * frames + t));
    }
  }
  context.putImageData(image, 0, 0);
  find(`${id}-axes`).textContent = `0 to ${span} from left to right, ${spec.f_min} to ${spec.f_max} Hz from bottom to top`;
}

// From black over violet and orange to pale yellow.
const STOPS = [[0, 0, 4], [81, 18, 124], [183, 55, 121], [252, 137, 97], [252, 253, 191]];
function colour(level) {
  const place = level * (STOPS.length - 1), below = Math.min(Math.floor(place), STOPS.length - 2), part = place - below;
  return [...STOPS[below].map((value, n) => value + part * (STOPS[below + 1][n] - value)), 255];
}

for (const id of ["vocoder", "sound"]) {
  find(id).addEventListener("change", (event) => [...event.target.files].forEach(take));
}
addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("over");
});
addEventListener("dragleave", (event) => event.relatedTarget ?? document.body.classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  [...event.dataTransfer.files].forEach(take);
});
addEventListener("play", (event) => document.querySelectorAll("audio").forEach((one) => one !== event.target && one.pause()), true);

const named = new URLSearchParams(location.search).get("vocoder"); // of a file on the page's own server
if (named) {
  try {
    const answer = await fetch(named);
    if (answer.ok) await take(new File([await answer.blob()], named.split("/").at(-1)));
    else say(`${named}: the server says ${answer.status} ${answer.statusText}`, true);
  } catch (error) {
    say(`${named}: ${error.message}`, true); // of another server, or none
  }
}
document.documentElement.dataset.ready = "";
