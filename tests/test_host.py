"""The program around melvoc: forked children, and whose line a warning shows."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from melvoc.host import warn

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks on this system")

FORKED = """
import os, sys, tempfile, torch
sys.path.insert(0, {tests!r})
import melvoc
from networks import VOCODERS
torch.set_num_threads(2)
assert torch.randn(2000, 2000).sin().sum().isfinite()  # torch's own threads are awake
spec = melvoc.MelSpec(sample_rate=16000, n_fft=512, hop_length=128, n_mels=40)
wave = torch.rand(4, 200_000) - 0.5
neural, griffinlim = VOCODERS["vocos_tiny"], melvoc.load("griffinlim", spec=spec, n_iter=2, device="cpu")

class Plugin(melvoc.Vocoder):
    def forward(self, mel):
        return mel.exp().mean(1, keepdim=True).repeat_interleave(128, -1).sin()

plugin = Plugin(name="plugin", spec=spec)
mel = melvoc.MelSpectrogram(spec)(wave)
power = melvoc.MelSpec(**spec.to_dict() | dict(power=2.0))
long, short = torch.full((4, neural.spec.n_mels, 600), -4.0), torch.full((neural.spec.n_mels, 9), -4.0)
path = os.path.join(tempfile.mkdtemp(), "a.wav")
melvoc.audio.write(path, wave, 16000)

def streamed():
    with neural.stream() as stream:
        return torch.cat([stream.push(long)[0, 0, :9000], stream.flush()[0, 0, :9000]])

calls = dict(
    mel=lambda: melvoc.MelSpectrogram(spec)(wave),
    mel_stream=lambda: melvoc.MelSpectrogram(spec).stream().push(wave),
    resample=lambda: melvoc.resample(wave, 16000, 24000),
    convert_mel=lambda: melvoc.convert_mel(mel, source=spec, target=power),
    voc_mel=lambda: plugin.mel(wave, sample_rate=24000),
    griffinlim=lambda: griffinlim.mel_to_waveform(mel[:1]),
    plugin=lambda: plugin.mel_to_waveform(mel, sample_rate=24000),
    call=lambda: plugin(mel),
    resynthesize=lambda: griffinlim.resynthesize(wave[0], sample_rate=16000),
    neural=lambda: neural.mel_to_waveform(long),
    stream=streamed,
    read=lambda: melvoc.audio.read(path)[0],
    save=lambda: melvoc.from_bytes(melvoc.to_bytes(neural), device="cpu").mel_to_waveform(short),
)
expected = {{name: call() for name, call in calls.items()}}
for name, call in calls.items():
    pid = os.fork()
    if not pid:
        try:
            got = call()
            assert torch.get_num_threads() == 2, "the old number is back"
            torch.set_num_threads(1)  # for the comparison
            os._exit(0 if (got - expected[name]).abs().max() < 1e-4 else 3)
        except BaseException as error:
            print(name, error)
        os._exit(1)
    import signal, time
    for _ in range(600):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        time.sleep(0.1)
    else:
        os.kill(pid, signal.SIGKILL)
        raise SystemExit(f"{{name}} hangs in a forked child")
    assert status == 0, f"{{name}}: {{status}}"
assert torch.get_num_threads() == 2
print("done")
"""


@forks
def test_every_public_call_works_in_a_forked_child_and_puts_torchs_threads_back() -> None:
    code = FORKED.format(tests=str(Path(__file__).parent))
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout.strip().endswith("done"), done.stdout + done.stderr


@forks
def test_importing_melvoc_leaves_a_forked_childs_threads_alone() -> None:
    code = (
        "import os, torch, melvoc, melvoc.neural\n"
        "torch.set_num_threads(3)\n"
        "pid = os.fork()\n"
        "if not pid: os._exit(torch.get_num_threads())\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "3"


def test_a_warning_shows_the_line_outside_melvoc() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn("look here")
    assert caught[0].filename == __file__
