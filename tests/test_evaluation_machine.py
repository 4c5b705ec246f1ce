"""How much memory a vocoder takes, and on what it was measured."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import melvoc
from melvoc.evaluation import machine
from melvoc.evaluation.machine import Memory, environment

MB = 1 << 20
SPEC = melvoc.MelSpec(sample_rate=22050, n_fft=1024, hop_length=256, n_mels=80)


class Hungry(melvoc.Vocoder):
    """Needs 128 MB while it works, and keeps 64 MB from its first call on; 4 MB of weights."""

    def __init__(self) -> None:
        super().__init__(name="hungry", spec=SPEC)
        self.weight = torch.nn.Parameter(torch.zeros(MB))
        self.kept: tuple[torch.Tensor, ...] = ()

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        if not self.kept:
            self.kept = (torch.ones(64 * MB // 4),)
        total = torch.ones(128 * MB // 4).sum()
        return total.new_zeros(mel.shape[0], 1, mel.shape[-1] * self.samples_per_frame)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process's peak memory")
def test_peak_memory_counts_weights_what_is_kept_and_what_is_needed() -> None:
    voc, mel = Hungry(), torch.full((1, 80, 4), -4.0)
    memory = Memory(voc)
    assert memory.weights >= 4 * MB
    memory.start()
    voc.mel_to_waveform(mel, spec=SPEC)
    memory.warmed()
    memory.start()
    voc.mel_to_waveform(mel, spec=SPEC)
    peak = memory.peak()
    if peak is None:
        pytest.skip("this system does not let a process reset its peak")
    assert 60 * MB <= memory.kept <= 100 * MB
    assert 180 * MB <= peak <= 260 * MB


def test_memory_is_unknown_where_the_system_does_not_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_RESET", tmp_path / "none" / "clear_refs")
    memory = Memory(Hungry())
    memory.start()
    memory.warmed()
    assert memory.peak() is None


def test_the_machine_and_the_versions() -> None:
    found = environment(torch.device("cpu"), ("soundfile", "no-such-package"))
    assert found["melvoc"] == melvoc.__version__
    assert found["torch"] == torch.__version__
    assert "cores" in found["processor"]
    assert "soundfile" in found
    assert "no-such-package" not in found
