"""The GPU kernels compile for real devices, which needs none: Triton brings ptxas along."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

triton = pytest.importorskip("triton", reason="needs Triton, which compiles the kernels")


def compiled(path: Path, monkeypatch: pytest.MonkeyPatch, name: str, dtype: str, capability: int, warps: int):  # type: ignore[no-untyped-def]
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from melvoc.nn.engines.cuda import kernel

    monkeypatch.setenv("TRITON_CACHE_DIR", str(path))
    function = getattr(kernel, name)
    constants = {"LANES": 32, "BLOCK": 1024, "HAS_BIAS": True, "HAS_SKIP": True, "HAS_SLOPE": False}
    constants = {name: value for name, value in constants.items() if name in function.arg_names}
    kinds = dict.fromkeys(["x", "context", "bias", "out", "y", "skip"], f"*{dtype}")
    kinds |= dict.fromkeys(["frequency", "factor"], "*fp32")
    kinds |= dict.fromkeys([*(f"f{i}" for i in range(6)), "slope"], "fp32")
    signature = {arg: "constexpr" if arg in constants else kinds.get(arg, "i32") for arg in function.arg_names}
    source = ASTSource(
        function, signature, constexprs={(function.arg_names.index(k),): v for k, v in constants.items()}
    )
    options = {"num_warps": warps, "enable_fp_fusion": True}
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


@pytest.mark.parametrize(("dtype", "capability"), [("fp32", 75), ("fp16", 80), ("bf16", 80), ("fp32", 90)])
def test_activation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, capability: int) -> None:
    result = compiled(tmp_path, monkeypatch, "snake", dtype, capability, warps=1)
    assert len(result.asm["cubin"]) > 1000
    # Inputs change hands once and outputs once: what the layout of the kernel is for.
    assert result.asm["ttgir"].count("ttg.convert_layout") == 2
    if dtype != "fp32":
        assert re.search(rf"cvt\.rn\.{dtype.replace('fp', 'f')}", result.asm["ptx"]), (
            "outputs are not rounded to nearest"
        )


def test_sums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = compiled(tmp_path, monkeypatch, "finish", "fp32", 90, warps=4)
    assert len(result.asm["cubin"]) > 1000


@pytest.mark.parametrize("name", ["snake", "finish"])
def test_no_length_batch_or_address_compiles_anything_anew(name: str) -> None:
    from melvoc.nn.engines.cuda import kernel

    special = {p.name for p in getattr(kernel, name).params if not (p.is_constexpr or p.do_not_specialize)}
    assert not special, "Triton would compile for values of 1 and multiples of 16 of these"
    switches = {p.name for p in getattr(kernel, name).params if p.is_constexpr}
    assert switches <= {"LANES", "BLOCK", "HAS_BIAS", "HAS_SKIP", "HAS_SLOPE"}  # none of which a shape decides
