"""onnxruntime's sessions: threads, forks and devices."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
import torch

from melvoc.errors import MelvocError, OptionError
from melvoc.onnx.session import Session, best_device, provider_of

ort = pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install 'melvoc[onnx]'")
pytest.importorskip("onnx", reason="needs the package that makes ONNX files: pip install onnx")

from onnx_graphs import network, write  # noqa: E402

CPU = torch.device("cpu")


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(write(tmp_path / "x.onnx"))


def test_it_has_as_many_threads_as_torch(session: Session) -> None:
    before = torch.get_num_threads()
    try:
        found = []
        for count in (1, 2, 1):
            torch.set_num_threads(count)
            found.append(session.on(CPU))
            assert found[-1].get_session_options().intra_op_num_threads == count
        assert found[0] is found[2], "of two, none is made twice"
        torch.set_num_threads(3)
        session.on(CPU)
        assert len(session._made) == 2, "each has all the weights"
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_runs_it_and_ends(session: Session) -> None:
    """onnxruntime's own session, whose threads a child does not have, would hang there, at the latest as it ends."""
    before, mel = torch.get_num_threads(), torch.zeros(1, 20, 300)
    torch.set_num_threads(2)
    try:
        (expected,) = session.run({"mel": mel}, CPU)
        pid = os.fork()
        if not pid:
            torch.set_num_threads(1)
            (got,) = session.run({"mel": mel}, CPU)
            session._made.clear()  # as at the interpreter's end
            os._exit(0 if (got - expected).abs().max() < 1e-5 else 3)
    finally:
        torch.set_num_threads(before)
    for _ in range(1000):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            assert status == 0
            return
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    pytest.fail("the child hangs")


def test_what_does_not_run_is_told_with_its_shapes(session: Session) -> None:
    with pytest.raises(MelvocError, match=r"its graph does not run on mel \[1, 7, 3\] \(Got invalid dimensions"):
        session.run({"mel": torch.zeros(1, 7, 3)}, CPU)
    assert torch.allclose(
        session.run({"mel": torch.zeros(1, 20, 3)}, CPU)[0], network(torch.zeros(1, 20, 3)), atol=1e-6
    )


def test_devices_that_onnxruntime_does_not_have(monkeypatch: pytest.MonkeyPatch, session: Session) -> None:
    assert provider_of(CPU) == ("CPUExecutionProvider", {})
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert best_device() == "cpu"
    for kind in ("cuda", "mps"):
        with pytest.raises(OptionError, match=f"device='{kind}', but this onnxruntime has CPUExecutionProvider; pass"):
            provider_of(torch.device(kind))
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    assert best_device() == "cuda"
    assert provider_of(torch.device("cuda:1")) == ("CUDAExecutionProvider", {"device_id": 1})


def test_a_gpu_that_onnxruntime_cannot_start_is_no_cpu(monkeypatch: pytest.MonkeyPatch, session: Session) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    made = ort.InferenceSession

    def falls_back(path: str, options: object, providers: object) -> object:
        return made(path, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(ort, "InferenceSession", falls_back)
    with pytest.raises(OptionError, match="onnxruntime does not start CUDAExecutionProvider, and would use the CPU"):
        session.on(torch.device("cuda"))
