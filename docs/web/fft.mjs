// Squared magnitudes of real signals, by Cooley and Tukey's algorithm of radix 2, in float64.

export function powerSpectrum(size) {
  const bits = Math.log2(size);
  if (!Number.isInteger(bits)) throw new Error(`n_fft=${size}, but this page transforms powers of two only`);
  const order = new Uint32Array(size);
  for (let n = 1; n < size; n++) order[n] = (order[n >> 1] >> 1) | ((n & 1) << (bits - 1));
  const cos = new Float64Array(size / 2), sin = new Float64Array(size / 2);
  for (let n = 0; n < size / 2; n++) {
    cos[n] = Math.cos((2 * Math.PI * n) / size);
    sin[n] = -Math.sin((2 * Math.PI * n) / size);
  }
  const re = new Float64Array(size), im = new Float64Array(size), powers = new Float64Array(size / 2 + 1);

  // `frame` has `size` samples; the result, size / 2 + 1 numbers, is overwritten by the next call.
  return (frame) => {
    for (let n = 0; n < size; n++) re[order[n]] = frame[n];
    im.fill(0);
    for (let half = 1; half < size; half *= 2) {
      const stride = size / (2 * half);
      for (let start = 0; start < size; start += 2 * half) {
        for (let n = 0; n < half; n++) {
          const a = start + n, b = a + half, c = cos[n * stride], s = sin[n * stride];
          const x = re[b] * c - im[b] * s, y = re[b] * s + im[b] * c;
          re[b] = re[a] - x;
          im[b] = im[a] - y;
          re[a] += x;
          im[a] += y;
        }
      }
    }
    for (let k = 0; k <= size / 2; k++) powers[k] = re[k] * re[k] + im[k] * im[k];
    return powers;
  };
}
