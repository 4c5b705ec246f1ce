"""Vocoder layers, and networks as expressions of them. Depends on torch and, within melvoc, only on the errors.

- `graph`: nodes (chain, branches, map), the machines that run them piece by piece, and the engine that opens machines.
- `state`: what a machine keeps, declared. `window`: a sliding window, which many machines are.
- `framing`, `stft`, `noise`: nodes that move channels and samples, transform frames, and draw numbers.
- `layers`: convolution, transposed convolution, frame-wise layers. `convnext`: blocks of them.
- `alias_free`: snake activations between a polyphase up- and downsampler. `rates`: upsampling for any hop length.
- `engines.cpu`, `engines.cuda`: engines that replace the arithmetic of single nodes, with the same results.
- `recording`: the repeated steps of a stream, recorded.
- `engines.mps`: an engine that cuts its input into pieces that MPS can take.
"""

from __future__ import annotations
