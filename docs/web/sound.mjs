// Sounds in and out: what a browser decodes, as mono samples at a rate; and samples as a WAV file to play.

const LONGEST = 30; // seconds

// Returns {wave, cut}: a Float32Array, and whether it is only the beginning.
export async function decode(buffer, sampleRate) {
  const context = new OfflineAudioContext(1, 1, sampleRate); // which resamples what it decodes
  const audio = await context.decodeAudioData(buffer);
  const wave = new Float32Array(Math.min(audio.length, LONGEST * sampleRate));
  for (let channel = 0; channel < audio.numberOfChannels; channel++) {
    const samples = evenly(audio.getChannelData(channel));
    for (let n = 0; n < wave.length; n++) wave[n] += samples[n] / audio.numberOfChannels;
  }
  if (!wave.length) throw new Error("it has no samples");
  return { wave, cut: audio.length > wave.length };
}

// Chromium divides the positive samples of 16-bit sound by 32767, the others by 32768. That makes harmonics, which a mel
// shows in quiet bands: it is undone where it can be seen, which is where nothing was resampled.
function evenly(samples) {
  const whole = (value) => Math.abs(value - Math.round(value)) < 0.01;
  if (!samples.every((sample) => whole(sample * (sample > 0 ? 32767 : 32768)))) return samples;
  return samples.map((sample) => (sample > 0 ? (sample * 32767) / 32768 : sample));
}

// 16-bit PCM of channels of equal length.
export function wav(channels, sampleRate) {
  const count = channels.length, bytes = 2 * count * channels[0].length, view = new DataView(new ArrayBuffer(44 + bytes));
  const text = (at, letters) => [...letters].forEach((letter, n) => view.setUint8(at + n, letter.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + bytes, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, count, true);
  view.setUint32(24, sampleRate, true);
  view.setUint32(28, 2 * count * sampleRate, true);
  view.setUint16(32, 2 * count, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, bytes, true);
  channels.forEach((wave, channel) => {
    wave.forEach((sample, n) => {
      const level = Math.max(-32768, Math.min(32767, Math.round(32768 * sample)));
      view.setInt16(44 + 2 * (n * count + channel), level, true);
    });
  });
  return new Blob([view], { type: "audio/wav" });
}
