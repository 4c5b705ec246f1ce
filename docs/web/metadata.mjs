// What an ONNX file says of itself, which onnxruntime-web does not give: field 14 of a ModelProto, whose entries have a
// key (field 1) and a value (field 2), in the encoding of protocol buffers (https://protobuf.dev/programming-guides/encoding).

// `bytes` is a Uint8Array; returns a Map.
export function metadataOf(bytes) {
  const text = new TextDecoder(), found = new Map();
  for (const [field, entry] of fieldsOf(bytes)) {
    if (field !== 14) continue;
    const parts = new Map([...fieldsOf(entry)].map(([number, part]) => [number, text.decode(part)]));
    found.set(parts.get(1) ?? "", parts.get(2) ?? "");
  }
  return found;
}

function* fieldsOf(bytes) {
  let at = 0;
  const number = () => {
    for (let value = 0, scale = 1; at < bytes.length && scale < 2 ** 64; scale *= 128) {
      const byte = bytes[at++];
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
    throw new Error("this is not an ONNX file, or it is damaged");
  };
  while (at < bytes.length) {
    const tag = number(), kind = tag % 8;
    if (kind === 0) number();
    const length = { 0: 0, 1: 8, 2: kind === 2 ? number() : 0, 5: 4 }[kind];
    if (length === undefined || at + length > bytes.length) throw new Error("this is not an ONNX file, or it is damaged");
    if (kind === 2) yield [Math.floor(tag / 8), bytes.subarray(at, at + length)];
    at += length;
  }
}
