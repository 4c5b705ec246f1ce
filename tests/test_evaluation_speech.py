"""Which sounds are taken for speech."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from melvoc.audio import read
from melvoc.evaluation.speech import looks_like_speech


def test_what_is_no_speech(rng: torch.Generator) -> None:
    time = torch.arange(48000) / 16000
    sounds = {
        "silence": torch.zeros(48000),
        "noise": 0.1 * torch.randn(48000, generator=rng),
        "tone": torch.sin(2 * torch.pi * 200 * time),
        "beats": torch.randn(48000, generator=rng) * torch.exp(-20 * (time % 0.25)),
        "half a second": torch.rand(8000, generator=rng),
    }
    assert not [name for name, wave in sounds.items() if looks_like_speech(wave[None], 16000)]


@pytest.mark.slow
def test_recordings(data_dir: Path) -> None:
    """The figures of docs/evaluation.md."""
    speech = [looks_like_speech(*read(path)) for path in sorted((data_dir / "audio" / "ljspeech").glob("*.wav"))]
    assert speech == [True] * 5
    others = sorted((data_dir / "audio" / "cc0_44khz").glob("*.flac"))
    taken = [path.stem for path in others if looks_like_speech(*read(path))]
    assert taken == ["glitch_bass_g"]


@pytest.mark.parametrize("channels", [1, 2])
def test_channels_and_rates(data_dir: Path, channels: int) -> None:
    wave, rate = read(data_dir / "audio" / "ljspeech" / "LJ001-0012.wav")
    assert looks_like_speech(wave.expand(channels, -1), rate)
    assert looks_like_speech(wave[:, ::2], rate // 2)
