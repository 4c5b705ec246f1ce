"""Vocoder layers, and networks as expressions of them. Depends on torch and, within melvoc, only on the errors.

- `graph`: nodes (chain, residual, mean), the machines that run them piece by piece, and the engine that opens machines.
- `layers`: convolution, transposed convolution, frame-wise layers.
- `alias_free`: snake activations between a polyphase up- and downsampler.
- `engines.cpu`, `engines.cuda`: engines that replace the arithmetic of single nodes, with the same results.
- `recording`: the repeated steps of a stream, recorded.
- `engines.mps`: an engine that cuts its input into pieces that MPS can take.
"""

from __future__ import annotations
