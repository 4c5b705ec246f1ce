"""Drives sherpa-onnx, which ends its process where a file is not as it wants it: `sherpa_child.py FOLDER VOCODER TEXT`.

The folder gets an acoustic model of Matcha's shape, whose mels are a table's rows, four frames for each token.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FRAMES = 4  # for each token


def write_acoustic(folder: Path, table: np.ndarray, sample_rate: int) -> None:
    """A model from tokens to mels, as sherpa-onnx's loader of Matcha's models reads it.

    Args:
        folder: gets acoustic.onnx, tokens.txt and lexicon.txt, with a word for each token: a, b, c, ...
        table: `[tokens, FRAMES, n_mels]`.
        sample_rate: of the vocoder's sound, in Hz.
    """
    words = [chr(ord("a") + number) for number in range(len(table))]
    (folder / "tokens.txt").write_text("".join(f"{word} {number}\n" for number, word in enumerate(words)))
    (folder / "lexicon.txt").write_text("".join(f"{word} {word}\n" for word in words))
    nodes = [
        helper.make_node("Gather", ["table", "x"], ["rows"]),
        helper.make_node("Reshape", ["rows", "shape"], ["frames"]),
        helper.make_node("Transpose", ["frames"], ["mel"], perm=[0, 2, 1]),
    ]
    shape = np.array([1, -1, table.shape[-1]])
    constants = [numpy_helper.from_array(table, "table"), numpy_helper.from_array(shape, "shape")]
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.INT64, [1, "tokens"]),
        helper.make_tensor_value_info("x_length", TensorProto.INT64, [1]),
        helper.make_tensor_value_info("noise_scale", TensorProto.FLOAT, [1]),
        helper.make_tensor_value_info("length_scale", TensorProto.FLOAT, [1]),
    ]
    mel = helper.make_tensor_value_info("mel", TensorProto.FLOAT, [1, table.shape[-1], "frames"])
    graph = helper.make_graph(nodes, "acoustic", inputs, [mel], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    said = {"sample_rate": sample_rate, "n_speakers": 1, "jieba": 1, "has_espeak": 0, "use_eos_bos": 0, "pad_id": 0}
    helper.set_model_props(model, {key: str(value) for key, value in {**said, "version": 1}.items()})
    onnx.save(model, folder / "acoustic.onnx")


def main() -> None:
    """Speak a text, and write its samples."""
    import sherpa_onnx

    folder, vocoder, text = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    matcha = sherpa_onnx.OfflineTtsMatchaModelConfig(
        acoustic_model=str(folder / "acoustic.onnx"),
        vocoder=vocoder,
        lexicon=str(folder / "lexicon.txt"),
        tokens=str(folder / "tokens.txt"),
    )
    model = sherpa_onnx.OfflineTtsModelConfig(matcha=matcha, num_threads=1)
    config = sherpa_onnx.OfflineTtsConfig(model=model, max_num_sentences=0, silence_scale=1.0)
    assert config.validate()
    audio = sherpa_onnx.OfflineTts(config).generate(text, sid=0, speed=1.0)
    np.save(folder / "samples.npy", np.array(audio.samples, np.float32))
    (folder / "rate.txt").write_text(str(audio.sample_rate))


if __name__ == "__main__":
    main()
