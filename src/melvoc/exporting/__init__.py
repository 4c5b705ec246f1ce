"""Vocoders for other runtimes: ONNX files and torch.export programs.

`files.export` writes them, with `metadata`. An ONNX graph (`models`) is written node by node from melvoc's own
expression (`melvoc.nn.graph`): `graph` builds it, `nodes` has what each kind of node becomes, `functions` what the
functions inside a `Map` or a join do, `spectra` and `noise` what has no counterpart among the operators that every
build of ONNX Runtime has, `refinement` the rounds after the network, and `streams` one step of a stream. `sherpa` has
what sherpa-onnx wants, and `programs` writes `.pt2` files.
"""
