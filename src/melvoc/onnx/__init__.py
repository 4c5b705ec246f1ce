"""Vocoders in ONNX files, melvoc's own exports and other people's, run by onnxruntime (`pip install 'melvoc[onnx]'`).

- `session`: onnxruntime's sessions; `metadata`: what a file says of itself.
- `port`: how a graph takes a mel and returns sound; `blocks`, `steps`: how it streams; `vocoder`: the whole of it.
"""
