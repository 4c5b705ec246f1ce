"""Layers of vocoders, and the network as an expression of them. Knows torch, and of melvoc only the errors.

- `graph`: nodes (chain, residual, mean), the machines that run them piece by piece, and the engine that opens machines.
- `layers`: convolution, transposed convolution, frame-wise layers.
- `alias_free`: snake activations between a polyphase up- and downsampler.
- `cpu`, `cuda`: engines that replace the arithmetic of single nodes, with the same results.
- `recording`: the repeated steps of a stream, recorded.
- `mps`: an engine that cuts what it gets into pieces that MPS takes.
"""

from __future__ import annotations
