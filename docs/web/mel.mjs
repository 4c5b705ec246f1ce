// The mel of a waveform, as melvoc.MelSpectrogram makes it: docs/melspec.md has what the fields of a spec mean.

import { powerSpectrum } from "./fft.mjs";

const ALLOWED = {
  mel_scale: ["slaney", "htk"],
  norm: ["slaney", null],
  power: [1, 2],
  log: ["ln", "log10", "log1p", "db"],
  pad_mode: ["reflect", "constant"],
  center: [true, false],
};
const NUMBERS = "sample_rate n_fft hop_length win_length n_mels f_min f_max log_floor magnitude_eps".split(" ");

export function checkSpec(spec) {
  for (const [field, values] of Object.entries(ALLOWED)) {
    if (!values.includes(spec[field])) throw new Error(`this page makes no mels with ${field}=${JSON.stringify(spec[field])}`);
  }
  for (const field of NUMBERS) {
    if (typeof spec[field] !== "number") throw new Error(`this mel's spec has no number for ${field}`);
  }
  if (!Number.isInteger(Math.log2(spec.n_fft))) throw new Error(`n_fft=${spec.n_fft}, but this page transforms powers of two only`);
}

// `wave` is a Float32Array of at least one sample at the spec's rate; zeros are appended, so that the frames cover it.
// Returns {values, bands, frames}: values[band * frames + t], the float32 that a network takes as [1, n_mels, T].
export function melOf(wave, spec) {
  checkSpec(spec);
  const { n_fft, hop_length, n_mels } = spec;
  const padded = pad(cover(wave, spec), spec);
  const frames = 1 + Math.floor((padded.length - n_fft) / hop_length);
  const window = windowOf(spec), filters = filtersOf(spec), transform = powerSpectrum(n_fft), log = logOf(spec);
  const values = new Float32Array(n_mels * frames), frame = new Float64Array(n_fft);
  for (let t = 0; t < frames; t++) {
    for (let n = 0; n < n_fft; n++) frame[n] = padded[t * hop_length + n] * window[n];
    const seen = transform(frame);
    for (let k = 0; k < seen.length; k++) {
      seen[k] += spec.magnitude_eps;
      if (spec.power === 1) seen[k] = Math.sqrt(seen[k]);
    }
    filters.forEach(({ first, weights }, band) => {
      let sum = 0;
      for (let k = 0; k < weights.length; k++) sum += weights[k] * seen[first + k];
      values[band * frames + t] = log(sum);
    });
  }
  return { values, bands: n_mels, frames };
}

function cover(wave, { hop_length, n_fft }) {
  const more = Math.max((hop_length - (wave.length % hop_length)) % hop_length, n_fft - wave.length);
  const longer = new Float32Array(wave.length + more);
  longer.set(wave);
  return longer;
}

function pad(wave, { n_fft, hop_length, center, pad_mode }) {
  const side = Math.floor((center ? n_fft : n_fft - hop_length) / 2), length = wave.length;
  const padded = new Float32Array(length + 2 * side);
  padded.set(wave, side);
  if (pad_mode === "reflect") {
    for (let n = 1; n <= side; n++) {
      padded[side - n] = wave[n];
      padded[side + length - 1 + n] = wave[length - 1 - n];
    }
  }
  return padded;
}

// A periodic Hann window, centred in n_fft. It and the filters are rounded to float32, as melvoc's are.
function windowOf({ n_fft, win_length }) {
  const window = new Float32Array(n_fft), left = Math.floor((n_fft - win_length) / 2);
  for (let n = 0; n < win_length; n++) window[left + n] = 0.5 - 0.5 * Math.cos((2 * Math.PI * n) / win_length);
  return window;
}

// Of each band the first bin and the weights from there on.
function filtersOf({ sample_rate, n_fft, n_mels, f_min, f_max, mel_scale, norm }) {
  const [toMel, toHz] = SCALES[mel_scale], low = toMel(f_min), step = (toMel(f_max) - low) / (n_mels + 1);
  const edges = Array.from({ length: n_mels + 2 }, (_, corner) => toHz(low + step * corner));
  [edges[0], edges[n_mels + 1]] = [f_min, f_max];
  return Array.from({ length: n_mels }, (_, band) => {
    const [left, middle, right] = edges.slice(band, band + 3), spacing = sample_rate / n_fft;
    const first = Math.max(0, Math.ceil(left / spacing)), last = Math.min(n_fft / 2, Math.floor(right / spacing));
    const height = norm === "slaney" ? 2 / (right - left) : 1;
    const weights = Float32Array.from({ length: Math.max(0, last - first + 1) }, (_, k) => {
      const hz = (first + k) * spacing;
      return height * Math.max(0, Math.min((hz - left) / (middle - left), (right - hz) / (right - middle)));
    });
    return { first, weights };
  });
}

const STEP = Math.log(6.4) / 27; // Slaney's scale: 27 mels from 1 kHz to 6.4 kHz, linear below
const SCALES = {
  slaney: [
    (hz) => (hz < 1000 ? (hz * 3) / 200 : 15 + Math.log(hz / 1000) / STEP),
    (mel) => (mel < 15 ? (mel * 200) / 3 : 1000 * Math.exp(STEP * (mel - 15))),
  ],
  htk: [(hz) => 2595 * Math.log10(1 + hz / 700), (mel) => 700 * (10 ** (mel / 2595) - 1)],
};

function logOf({ log, log_floor, power }) {
  if (log === "log1p") return Math.log1p;
  if (log === "ln") return (mel) => Math.log(Math.max(mel, log_floor));
  const factor = log === "db" ? 20 / power : 1;
  return (mel) => factor * Math.log10(Math.max(mel, log_floor));
}
