"""The program around melvoc: forked children, what it has set for torch, and whose line a warning shows."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import VOCODERS, random_mel
from torch import Tensor
from training import one_thread, tiny_config, write_sounds  # noqa: F401 - a fixture

import melvoc
from melvoc.host import _AUTOCASTS, public, warn
from melvoc.train import Trainer

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks on this system")

FORKED = """
import os, sys, tempfile, torch
sys.path.insert(0, {tests!r})
import melvoc
from melvoc.batch import Mel, Vocode
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
music = melvoc.MelSpectrogram(melvoc.MelSpec.preset("griffinlim"))(wave[0])[0]
path = os.path.join(tempfile.mkdtemp(), "a.wav")
melvoc.audio.write(path, wave, 16000)

def streamed():
    with neural.stream() as stream:
        return torch.cat([stream.push(long)[0, 0, :9000], stream.flush()[0, 0, :9000]])

calls = dict(
    mel=lambda: melvoc.MelSpectrogram(spec)(wave),
    clamp=lambda: spec.clamp(wave.flatten()),
    channels=lambda: melvoc.audio.unfold_channels(melvoc.audio.fold_channels(wave[:2], "ms"), 2, "ms"),
    batch=lambda: torch.from_numpy(Vocode("griffinlim")(dict(mel=[music.numpy()]))["audio"][0]),
    batch_mel=lambda: torch.from_numpy(Mel(spec, rate=16000)(dict(sound=list(wave.numpy())))["mel"][0]),
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


SPEC = melvoc.MelSpec(sample_rate=16000, n_fft=512, hop_length=128, n_mels=40)
WAVE = 0.5 * torch.sin(torch.arange(4000) / 9)
MEL = melvoc.MelSpectrogram(SPEC)(WAVE)


class Plain(melvoc.Vocoder):
    """A plugin without parameters, whose code says no type."""

    def forward(self, mel: Tensor) -> Tensor:
        ramp = torch.linspace(0.0, 1.0, 128)
        return mel.exp().mean(1, keepdim=True).repeat_interleave(128, -1) * ramp.repeat(mel.shape[-1])


CALLS: dict[str, Callable[[], Tensor]] = {
    "mel": lambda: melvoc.MelSpectrogram(SPEC)(WAVE),
    "resample": lambda: melvoc.resample(WAVE, 16000, 22050),
    "convert_mel": lambda: melvoc.convert_mel(
        MEL, source=SPEC, target=melvoc.MelSpec(**SPEC.to_dict() | {"norm": None})
    ),
    "griffinlim": lambda: melvoc.load("griffinlim", spec=SPEC, n_iter=2, device="cpu").mel_to_waveform(
        MEL, sample_rate=22050
    ),
    "plugin": lambda: Plain(name="plain", spec=SPEC).mel_to_waveform(MEL, sample_rate=8000),
    "plugin's mel": lambda: Plain(name="plain", spec=SPEC).mel(WAVE, sample_rate=8000),
    "torch": lambda: melvoc.from_bytes(BLOB, device="cpu", engine="torch").mel_to_waveform(NEURAL, sample_rate=24000),
    "auto": lambda: melvoc.from_bytes(BLOB, device="cpu").mel_to_waveform(NEURAL),
    "call": lambda: melvoc.from_bytes(BLOB, device="cpu")(NEURAL),
    "resynthesize": lambda: melvoc.load("griffinlim", spec=SPEC, n_iter=1, device="cpu").resynthesize(
        WAVE, sample_rate=8000
    ),
}
BLOB = melvoc.to_bytes(VOCODERS["bigvgan_v2_tiny"])
NEURAL = random_mel(VOCODERS["bigvgan_v2_tiny"], 9)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
        assert torch.get_default_dtype() == dtype, "what the host has set is as it was"
    finally:
        torch.set_default_dtype(before)


@contextmanager
def default_device(device: str) -> Iterator[None]:
    torch.set_default_device(device)
    try:
        yield
        assert torch.get_default_device().type == device
    finally:
        torch.set_default_device(None)


HOSTS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "float64": lambda: default_dtype(torch.float64),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "device": lambda: default_device("meta"),
    "device context": lambda: torch.device("meta"),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    **({"autocast on mps": lambda: torch.autocast("mps", torch.float16)} if "mps" in _AUTOCASTS else {}),
    "inference mode": torch.inference_mode,
    "no grad": torch.no_grad,
}


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("call", CALLS)
def test_the_hosts_state_does_not_reach_into_a_call(call: str, host: str) -> None:
    expected = CALLS[call]()
    with HOSTS[host]():
        got = CALLS[call]()
    assert (got.dtype, got.device) == (torch.float32, torch.device("cpu"))
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=0)


@pytest.mark.skipif("mps" not in _AUTOCASTS, reason="this torch has no autocast for MPS")
def test_autocast_of_every_device_is_switched_off() -> None:
    seen = {}
    with torch.autocast("mps", torch.float16), torch.autocast("cpu", torch.bfloat16):
        public(lambda: seen.update({kind: torch.is_autocast_enabled(kind) for kind in ("cpu", "mps")}))()
        assert torch.is_autocast_enabled("mps")
    assert seen == {"cpu": False, "mps": False}


def test_a_call_that_begins_beside_another_keeps_its_type_to_the_end() -> None:
    """The first call's end gives the host its type back, but not in the middle of the second."""
    began, ended, seen = threading.Event(), threading.Event(), []

    def second() -> None:
        began.set()
        assert ended.wait(10)
        seen.append(torch.get_default_dtype())

    def first(thread: threading.Thread) -> None:
        thread.start()
        assert began.wait(10)

    with default_dtype(torch.float64):
        thread = threading.Thread(target=public(second))
        public(first)(thread)
        ended.set()
        thread.join()
    assert seen == [torch.float32]


@forks
@pytest.mark.parametrize("inside", [False, True])
def test_a_fork_beside_a_call_leaves_the_child_what_the_host_has_set(inside: bool) -> None:
    """The child of a thread that is in no call has the host's type at once, of one that is, when its call ends."""
    began, over, answers = threading.Event(), threading.Event(), os.pipe()

    def forked() -> None:
        pid = os.fork()
        if not pid:
            children.append(torch.get_default_dtype())
            return
        os.waitpid(pid, 0)

    def other() -> None:
        began.set()
        assert over.wait(30)

    children: list[torch.dtype] = []
    with default_dtype(torch.float64):
        thread = threading.Thread(target=public(other))
        thread.start()
        assert began.wait(10)
        (public(forked) if inside else forked)()
        if children:  # the child
            public(lambda: children.append(torch.get_default_dtype()))()
            children.append(torch.get_default_dtype())
            os.write(answers[1], " ".join(map(str, children)).encode())
            os._exit(0)
        over.set()
        thread.join()
    first = "torch.float32" if inside else "torch.float64"
    assert os.read(answers[0], 1000).decode() == f"{first} torch.float32 torch.float64"


def test_what_is_loaded_in_inference_mode_is_an_ordinary_module(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(BLOB)
    with torch.inference_mode():
        state = melvoc.pack(VOCODERS["bigvgan_v2_tiny"])
        loaded = [melvoc.load(path, device="cpu"), melvoc.from_bytes(BLOB, device="cpu"), melvoc.unpack(state)]
    for voc in loaded:
        assert not any(parameter.is_inference() for parameter in voc.parameters())
        mel = NEURAL.clone().requires_grad_()
        voc(mel).square().sum().backward()
        assert mel.grad is not None
        voc.load_state_dict(voc.state_dict())


def test_a_filter_that_was_made_in_inference_mode_lets_gradients_through() -> None:
    with torch.inference_mode():
        melvoc.resample(WAVE, 16001, 22050)
    wave = WAVE.clone().requires_grad_()
    melvoc.resample(wave, 16001, 22050).sum().backward()
    assert wave.grad is not None


@pytest.mark.parametrize("host", [name for name in HOSTS if name != "device context"])
def test_training_is_the_same_whatever_the_host_has_set(host: str, tmp_path: Path) -> None:
    write_sounds(tmp_path / "sounds")
    expected = [report.losses for report in Trainer(tiny_config(tmp_path, steps=2))]
    with HOSTS[host]():
        config = tiny_config(tmp_path, steps=2, run_dir=tmp_path / "again")
        assert [report.losses for report in Trainer(config)] == expected


def test_a_warning_shows_the_line_outside_melvoc() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn("look here")
    assert caught[0].filename == __file__
