"""Vocoders for other runtimes: ONNX files and torch.export programs.

`files.export` writes them. An ONNX graph is written node by node from melvoc's own expression (`melvoc.nn.graph`):
`graph` builds it, `nodes` has what each kind of node becomes, `functions` what the functions inside a `Map` or a join
do, `spectra` and `noise` those without a counterpart in the operators that ONNX Runtime's web build runs, and
`refinement` the rounds after the network.
"""
