"""sherpa-onnx speaks with exported vocoders."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from exported import Vocoder, metadata, run, session, some_mel, tiny
from test_exporting_models import Duet

import melvoc

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
CHILD = Path(__file__).with_name("sherpa_child.py")
TEXT = "a b c a b d a c b"


@pytest.mark.skipif(importlib.util.find_spec("sherpa_onnx") is None, reason="needs sherpa-onnx")
@pytest.mark.parametrize(
    ("name", "lost"),
    [("hifigan", 0), ("istftnet", 0), ("wavenext", 0), ("vocos same", 0), ("vocos", 1), ("flow2gan 1", 0)],
)
def test_sherpa_onnx_makes_melvocs_sound(name: str, lost: int, tmp_path: Path) -> None:
    """A hop is lost where sherpa-onnx does the inverse STFT: `(T - 1) * hop_length` samples, as published for Vocos."""
    from sherpa_child import FRAMES, write_acoustic

    vocoder = tiny(name)
    table = some_mel(vocoder, 4 * FRAMES)[0].T.reshape(4, FRAMES, -1).contiguous()
    write_acoustic(tmp_path, table.numpy(), vocoder.sample_rate)
    melvoc.export(vocoder, tmp_path / "vocoder.onnx", target="sherpa")
    command = [sys.executable, str(CHILD), str(tmp_path), str(tmp_path / "vocoder.onnx"), TEXT]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "rate.txt").read_text() == str(vocoder.sample_rate)
    spoken = [0]  # before, between and after words sherpa-onnx puts the token of padding, which is 0
    for letter in TEXT.split():
        spoken += [ord(letter) - ord("a"), 0]
    mel = table[spoken].flatten(0, 1).T[None]
    wanted = vocoder.mel_to_waveform(mel, spec=vocoder.spec)[0, 0]
    sound = torch.from_numpy(np.load(tmp_path / "samples.npy"))
    assert len(sound) == len(wanted) - 16 * lost
    torch.testing.assert_close(sound, wanted[: len(sound)], atol=1e-4, rtol=0)


def test_the_fields_that_its_loader_reads(tmp_path: Path) -> None:
    melvoc.export(tiny("vocos"), tmp_path / "vocos.onnx", target="sherpa")
    said = metadata(tmp_path / "vocos.onnx")
    assert said["model_type"] == "vocos"
    numbers = {"n_fft": "64", "hop_length": "16", "win_length": "64", "center": "1", "normalized": "0"}
    assert numbers.items() <= said.items()
    assert (said["window_type"], said["pad_mode"]) == ("hann", "reflect")
    outputs = [(one.name, one.shape[1]) for one in session(tmp_path / "vocos.onnx").get_outputs()]
    assert outputs == [("mag", 33), ("x", 33), ("y", 33)]
    assert melvoc.MelSpec.from_dict(json.loads(said["melvoc.spec"])) == tiny("vocos").spec
    for name, refine in (("vocos", 1), ("vocos same", 0), ("hifigan", 0)):
        melvoc.export(tiny(name), tmp_path / "sound.onnx", target="sherpa", refine=refine)
        assert metadata(tmp_path / "sound.onnx")["model_type"] == "hifigan", "the sound comes out of the graph"
    mel = some_mel(tiny("hifigan"), 8)
    assert run(session(tmp_path / "sound.onnx"), mel=mel).shape == (1, 1, 128)


def test_what_sherpa_onnx_cannot_play_is_refused(tmp_path: Path) -> None:
    vocoder: Vocoder = Duet()
    with pytest.raises(melvoc.MelvocError, match="duet is not for sherpa-onnx, which gives a vocoder a mel alone"):
        melvoc.export(vocoder, tmp_path / "x.onnx", target="sherpa")
    assert not list(tmp_path.iterdir()), "nothing half-written"
