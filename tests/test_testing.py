"""The conformance kit: it passes what keeps the promises, and says which one is broken."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import random
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from networks import VOCODERS, neural, randomised
from torch import Tensor

import melvoc
from melvoc import Condition, registry
from melvoc.architectures.flow2gan import Flow2GAN, Flow2GANConfig
from melvoc.architectures.glnet import GLNet, sized
from melvoc.architectures.hifigan import HiFiGAN, HiFiGANConfig
from melvoc.architectures.istftnet import ISTFTNet, ISTFTNetConfig
from melvoc.architectures.speecht5hifigan import ARCHITECTURE as SPEECHT5
from melvoc.architectures.wavenext import WaveNeXt, WaveNeXtConfig
from melvoc.neural import NeuralVocoder
from melvoc.nn.graph import Chain, Machine, Map, Node
from melvoc.nn.layers import Conv1d, ConvTranspose1d
from melvoc.post.refine import refined
from melvoc.registry import ARCHITECTURES
from melvoc.testing import ConformanceError, check_vocoder

EXAMPLES = Path(__file__).parent
SPEC = melvoc.MelSpec(sample_rate=16000, n_fft=512, hop_length=128, n_mels=40)
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks on this system")


class Good(melvoc.Vocoder):
    """Streams, and keeps every promise: what the broken ones are made of."""

    def __init__(self) -> None:
        super().__init__(name="voc", spec=SPEC)
        self.frames, self.up = Conv1d(40, 8, 3), ConvTranspose1d(8, 1, 256, 128)
        randomised(self)

    def graph(self) -> Node:
        return Chain((Map(_scaled), self.frames, self.up, Map(torch.tanh)))


def _scaled(frames: Tensor) -> Tensor:
    return frames / 8


class Whole(Good):
    """Needs its mel at once: `forward` of subclasses changes the good one's."""

    graph = melvoc.Vocoder.graph

    def forward(self, mel: Tensor) -> Tensor:
        return Good.graph(self)(mel)


# What passes


class Wide(Good):
    """Two channels at twice the mel's rate, of a mel and a pitch: all that a vocoder may say of itself."""

    channels = property(lambda self: 2)  # type: ignore[assignment]
    samples_per_frame = property(lambda self: 256)  # type: ignore[assignment]
    sample_rate = property(lambda self: 32000)  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.frames, self.up = Conv1d(41, 8, 3), ConvTranspose1d(8, 2, 512, 256)
        randomised(self)

    @property
    def conditions(self) -> Mapping[str, Condition]:
        return {"f0": Condition(unit="Hz", low=0.0, high=4000.0)}


class Odd(Wide):
    """Its frames are no whole samples of the mel's frames, so that it cannot be refined."""

    samples_per_frame = property(lambda self: 255)  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.up = ConvTranspose1d(8, 2, 511, 255)


def example(folder: str, name: str) -> Any:
    file = EXAMPLES / folder / "src" / name / "__init__.py"
    location = importlib.util.spec_from_file_location(name, file)
    assert location
    assert location.loader
    module = importlib.util.module_from_spec(location)
    sys.modules[name] = module  # its dataclasses ask for it
    location.loader.exec_module(module)
    return module


def organ() -> melvoc.Vocoder:
    voc: melvoc.Vocoder = example("plugin_example", "melvoc_organ").load_organ("organ", device="cpu", dtype=None)
    return voc


def speecht5() -> melvoc.Vocoder:
    spec = melvoc.MelSpec.preset("speecht5_16khz_80band_log10")
    config = SPEECHT5.config(
        upsample_initial_channel=16, resblock_kernel_sizes=(3,), resblock_dilation_sizes=((1, 3, 5),)
    )
    return NeuralVocoder(randomised(SPEECHT5.network(config)), name="speecht5", spec=spec, architecture=SPEECHT5)


def hifigan() -> melvoc.Vocoder:
    config = HiFiGANConfig(
        n_mels=40, upsample_rates=(8, 4, 4), upsample_kernel_sizes=(16, 8, 8), upsample_initial_channel=16,
        resblock_kernel_sizes=(3,), resblock_dilation_sizes=((1, 3, 5),),
    )  # fmt: skip
    return neural(randomised(HiFiGAN(config)), name="hifigan", spec=SPEC)


def flow2gan() -> melvoc.Vocoder:
    config = Flow2GANConfig(
        n_mels=40, hop_length=128, n_timesteps=2, n_ffts=(256, 128), hop_lengths=(128, 64), widths=(24, 16),
        num_layers=(1, 1), kernel_sizes=(7, 7), encoder_channels=16, encoder_layers=1, time_channels=4,
    )  # fmt: skip
    return neural(randomised(Flow2GAN(config)), name="flow2gan", spec=SPEC)


def glnet() -> melvoc.Vocoder:
    config = dataclasses.replace(sized(16, 2, SPEC), rounds=2)
    return neural(randomised(GLNet(config)), name="glnet", spec=SPEC)


def istftnet() -> melvoc.Vocoder:
    config = ISTFTNetConfig(
        n_mels=40, upsample_rates=(8, 4), upsample_kernel_sizes=(16, 8), upsample_initial_channel=16,
        resblock_kernel_sizes=(3,), resblock_dilation_sizes=((1, 3, 5),),
    )  # fmt: skip
    return neural(randomised(ISTFTNet(config)), name="istftnet", spec=SPEC)


def wavenext() -> melvoc.Vocoder:
    config = WaveNeXtConfig(n_mels=40, dim=16, intermediate_dim=24, num_layers=2, n_fft=256, hop_length=128)
    return neural(randomised(WaveNeXt(config)), name="wavenext", spec=SPEC)


def refined_hifigan() -> melvoc.Vocoder:
    voc = hifigan()
    voc.post = refined(voc.post, 1)
    return voc


PASSING: dict[str, Callable[[], melvoc.Vocoder]] = {
    **{name: lambda name=name: VOCODERS[name] for name in VOCODERS},  # type: ignore[misc]
    "hifigan": hifigan,
    "hifigan, plain torch": lambda: melvoc.from_bytes(melvoc.to_bytes(hifigan()), device="cpu", engine="torch"),
    "hifigan, half": lambda: hifigan().to(torch.bfloat16),
    "hifigan, double": lambda: hifigan().to(torch.float64),
    "hifigan, refined": refined_hifigan,
    "speecht5hifigan": speecht5,
    "flow2gan": flow2gan,
    "glnet": glnet,
    "istftnet": istftnet,
    "wavenext": wavenext,
    "griffinlim": lambda: melvoc.load("griffinlim", spec=SPEC, device="cpu"),
    "the plugin of the page": organ,
    "streaming": Good,
    "whole": Whole,
    "with everything": Wide,
    "not to be refined": Odd,
}


LONG = {"bigvgan_v2_tiny": pytest.mark.slow, "bigvgan_v1_tiny": pytest.mark.slow}  # 512 samples a frame, 28 frames


@pytest.mark.parametrize("name", [pytest.param(name, marks=LONG.get(name, ())) for name in PASSING])
def test_what_keeps_its_promises_passes(name: str) -> None:
    check_vocoder(PASSING[name]())


def test_the_architecture_of_the_page_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registered as an installed package's is, so that its file can be read again."""
    module = example("architecture_example", "melvoc_pulse")
    point = EntryPoint(name="pulse", value="melvoc_pulse:PULSE", group=ARCHITECTURES.group)
    real = registry.entry_points
    monkeypatch.setattr(
        registry, "entry_points", lambda group: [*real(group=group), *[point] * (group == ARCHITECTURES.group)]
    )
    network = randomised(module.PulseNet(module.PulseConfig(width=8)))
    check_vocoder(NeuralVocoder(network, name="pulse", spec=SPEC, architecture=module.PULSE))


def test_every_architecture_is_among_them() -> None:
    passing = {
        voc.architecture.name
        for make in PASSING.values()
        if isinstance(voc := make(), NeuralVocoder) and voc.architecture
    }
    assert passing == set(ARCHITECTURES.own())


# What does not


class Short(Whole):
    def forward(self, mel: Tensor) -> Tensor:
        return super().forward(mel)[..., :-1]


class Loud(Good):
    def mel_to_waveform(self, mel: Tensor, **options: Any) -> Tensor:
        return 3 * super().mel_to_waveform(mel, **options)


class Integers(Good):
    def mel_to_waveform(self, mel: Tensor, **options: Any) -> Tensor:
        return (32767 * super().mel_to_waveform(mel, **options)).short()


class Mixing(Whole):
    """Normalises over the batch."""

    def forward(self, mel: Tensor) -> Tensor:
        return super().forward(mel - mel.mean())


class Noisy(Whole):
    """Draws noise from the host's generator."""

    def forward(self, mel: Tensor) -> Tensor:
        return super().forward(mel + 0.01 * torch.randn_like(mel))


class Counting(Whole):
    """Another sound each time."""

    calls = 0

    def forward(self, mel: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(mel) * 0.99**self.calls


class Keeping(Whole):
    """Leaves what a call needs in self."""

    def forward(self, mel: Tensor) -> Tensor:
        self.kept = mel
        time.sleep(0.02)
        return super().forward(self.kept)


class Forgetful(Machine):
    """A running mean of two samples that begins anew with each piece."""

    def __call__(self, x: Tensor, last: bool) -> Tensor:
        return (x + torch.cat([x[..., :1], x[..., :-1]], -1)) / 2 if x.shape[-1] else x


class Sharing(Machine):
    """The same with a state, which forks share."""

    def __init__(self) -> None:
        self.held: list[Tensor] = []

    def __call__(self, x: Tensor, last: bool) -> Tensor:
        if not x.shape[-1]:
            return x
        before = self.held.pop() if self.held else x[..., :1]
        self.held.append(x[..., -1:])
        return (x + torch.cat([before, x[..., :-1]], -1)) / 2


class Averaged(Good):
    """With a node of its own, whose machine is wrong."""

    machine: type[Machine] = Forgetful
    missing = 0

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return super().__call__(x)

    def graph(self) -> Node:
        return Chain((super().graph(), self.Node(self)))

    class Node:
        def __init__(self, voc: Averaged) -> None:
            self.voc = voc

        def __call__(self, x: Tensor) -> Tensor:
            return Forgetful()(x, True)

        def open(self, engine: object) -> Machine:
            return self.voc.machine()

        def delay(self, samples: int) -> int:
            return max(0, samples - self.voc.missing)


class SharingForks(Averaged):
    machine = Sharing


class Hasty(Averaged):
    """Says that it waits for less than it does."""

    machine, missing = Sharing, 100


class Patient(Averaged):
    """Says that it waits for more than it does."""

    machine, missing = Sharing, -1000


class SharingStreams(Averaged):
    """All streams have one machine, which begins anew with each."""

    def machine(self) -> Machine:  # type: ignore[override]
        self.only = self.__dict__.get("only", Sharing())
        self.only.held.clear()
        return self.only


class Two(Good):
    """A `forward` that is not its graph."""

    def forward(self, mel: Tensor) -> Tensor:
        return 0.9 * super().forward(mel)


class Ranging(Whole):
    """Divides by how far the mel reaches."""

    def forward(self, mel: Tensor) -> Tensor:
        return super().forward(8 * (mel - mel.amin((1, 2), True)) / (mel.amax((1, 2), True) - mel.amin((1, 2), True)))


class Careless(Good):
    """Checks nothing."""

    def mel_to_waveform(self, mel: Tensor, *, spec: object = None, **options: Any) -> Tensor:
        return super().mel_to_waveform(mel, **options)


class Writing(Good):
    """Works in place on the caller's mel."""

    def mel_to_waveform(self, mel: Tensor, **options: Any) -> Tensor:
        return super().mel_to_waveform(mel.clamp_(max=-5), **options)


class Learning(Whole):
    """Changes a weight as it goes."""

    def forward(self, mel: Tensor) -> Tensor:
        self.frames.weight.data[0, 0, 0] += 1e-7
        return super().forward(mel)


class Unpadded(Good):
    """Cuts, but never pads."""

    def mel_to_waveform(self, mel: Tensor, *, length: int | None = None, **options: Any) -> Tensor:
        return super().mel_to_waveform(mel, **options)[..., :length]


class Full(Good):
    """Ignores lengths."""

    def mel_to_waveform(self, mel: Tensor, *, lengths: object = None, **options: Any) -> Tensor:
        return super().mel_to_waveform(mel.nan_to_num(0.0), **options)


class OwnRate(Good):
    """Takes every n-th sample for another rate."""

    def mel_to_waveform(self, mel: Tensor, *, sample_rate: int | None = None, **options: Any) -> Tensor:
        wave = super().mel_to_waveform(mel, **options)
        return wave if sample_rate is None else wave.repeat_interleave(3, -1)[..., ::2]


class Unrefined(Good):
    """An interface of its own, without the newer options."""

    def mel_to_waveform(  # type: ignore[override]
        self, mel: Tensor, *, spec: Any = None, lengths: Any = None, length: Any = None, conditions: Any = None,
        sample_rate: Any = None, block_frames: Any = None,
    ) -> Tensor:  # fmt: skip
        named = {"spec": spec, "lengths": lengths, "length": length, "conditions": conditions}
        return super().mel_to_waveform(mel, **named, sample_rate=sample_rate, block_frames=block_frames)


class Grading(Good):
    """Computes gradients."""

    def mel_to_waveform(self, mel: Tensor, **options: Any) -> Tensor:
        return super().mel_to_waveform(mel, **options) * self.frames.weight.mean().clamp(0.5, 0.5)


class Strings(Good):
    """Conditions that say nothing."""

    conditions = property(lambda self: {"f0": "Hz"})  # type: ignore[assignment]


class Pooled(Whole):
    """Threads that are made with it, and that no child has."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = ThreadPoolExecutor(1)
        self.pool.submit(int).result()

    def forward(self, mel: Tensor) -> Tensor:
        return self.pool.submit(torch.no_grad()(super().forward), mel).result()


class Native(Whole):
    """Works only in the process that made it."""

    def __init__(self) -> None:
        super().__init__()
        self.process = os.getpid()

    def forward(self, mel: Tensor) -> Tensor:
        if os.getpid() != self.process:
            raise RuntimeError("the library was started elsewhere")
        return super().forward(mel)


def patched() -> melvoc.Vocoder:
    """What it does beside its options is not in its file."""
    voc = melvoc.load("griffinlim", spec=SPEC, n_iter=2, device="cpu")
    plain = voc.forward
    voc.forward = lambda mel: 0.5 * plain(mel)  # type: ignore[method-assign]
    return voc


def setting(change: Callable[[], object]) -> Callable[[], melvoc.Vocoder]:
    class Setting(Whole):
        def forward(self, mel: Tensor) -> Tensor:
            change()
            return super().forward(mel)

    return Setting


BROKEN: dict[str, tuple[Callable[[], Any], str, str]] = {
    "no vocoder": (lambda: torch.nn.Linear(1, 1), "description", "is a Linear; a vocoder subclasses melvoc.Vocoder"),
    "conditions without units": (Strings, "description", "but they map names to melvoc.Condition"),
    "a sample is missing": (Short, "shapes", r"PluginError: Short.forward gave \[2, 1, \d+\]"),
    "louder than full scale": (Loud, "shapes", r"the sound leaves \[-1, 1\]; leave clamping to the base class"),
    "integers": (Integers, "shapes", "the sound is torch.int16, but it is torch.float32"),
    "writes into the mel": (Writing, "shapes", "the caller's mel or conditions were changed"),
    "forward is not the graph": (Two, "shapes", "forward.mel. gives another sound than mel_to_waveform"),
    "gradients": (Grading, "shapes", "the sound has a gradient; mel_to_waveform computes none"),
    "another sound each time": (Counting, "shapes", "gives another sound than"),
    "noise of the host's": (Noisy, "shapes", "gives another sound"),
    "rows are mixed": (Mixing, "batch", "row 0 of a batch is not what it is alone; rows are independent"),
    "lengths are ignored": (Full, "lengths", "with lengths=, "),
    "never pads": (Unpadded, "lengths", r"length=\d+ gave \d+ samples"),
    "a machine forgets": (Averaged, "streams", r"pieces cut at \[.*\] are not the whole; a machine is wrong"),
    "forks share a state": (SharingForks, "streams", "another one after its machine was forked"),
    "a delay that is too short": (Hasty, "streams", "correct delay"),
    "a delay that is too long": (Patient, "streams", r"a stream was never more than \d+ samples behind; correct delay"),
    "streams share a state": (SharingStreams, "streams", "is another one beside a second; what a stream remembers"),
    "NaN of silence": (Ranging, "finiteness", "made NaN or Inf|is not finite and in"),
    "no refine": (Unrefined, "refinement", "TypeError.*refine"),
    "resamples by itself": (OwnRate, "resampling", "sample_rate=24000 does not give the resampled sound"),
    "more than its file": (patched, "saving", "what was saved gives another sound when it is loaded"),
    "checks nothing": (Careless, "errors", "a mel of another spec is no error, but it is a MelMismatchError"),
    "keeps a call in self": (Keeping, "threads", "while another thread calls too; keep nothing of a call in self"),
    "changes its weights": (Learning, "host", "have changed its frames.weight; synthesis changes nothing"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_vocoder_is_told_what_it_breaks(name: str) -> None:
    make, check, message = BROKEN[name]
    with pytest.raises(ConformanceError, match=message) as error:
        check_vocoder(make())
    assert error.value.check == check
    assert isinstance(error.value, AssertionError)
    if name != "no vocoder":
        assert str(error.value).startswith(("voc: ", "griffinlim: "))


@forks
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Pooled, r"in a forked child it hangs \(for 1 s\)"),
        (Native, "in a forked child it raised RuntimeError: the library was started elsewhere"),
    ],
)
def test_what_does_not_survive_a_fork(
    make: Callable[[], melvoc.Vocoder], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("melvoc.testing.host.PATIENCE", 1.0)
    with pytest.raises(ConformanceError, match=message) as error:
        check_vocoder(make())
    assert error.value.check == "fork"


SETTINGS: dict[str, Callable[[], object]] = {
    "torch's random numbers": lambda: torch.manual_seed(5),
    "torch's number of threads": lambda: torch.set_num_threads(torch.get_num_threads() % 2 + 1),
    "torch's default dtype": lambda: torch.set_default_dtype(torch.float64),
    "torch's matmul precision": lambda: torch.set_float32_matmul_precision("medium"),
    "Python's random numbers": lambda: random.seed(5),
    "NumPy's random numbers": lambda: numpy.random.seed(5),
    "NumPy's error handling": lambda: numpy.seterr(all="raise"),
    "the warnings' filters": lambda: warnings.simplefilter("ignore"),
    "the environment": lambda: os.environ.__setitem__("OMP_NUM_THREADS", "7"),
    "the working folder": lambda: os.chdir("/"),
    "sys.path": lambda: sys.path.append("here"),
}


@pytest.fixture
def settings_put_back(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(".")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    threads, precision, states = torch.get_num_threads(), torch.get_float32_matmul_precision(), numpy.geterr()
    python, old = random.getstate(), numpy.random.get_state()
    with warnings.catch_warnings():
        yield
    torch.set_num_threads(threads)
    torch.set_default_dtype(torch.float32)
    torch.set_float32_matmul_precision(precision)
    numpy.seterr(**states)
    random.setstate(python)
    numpy.random.set_state(old)


@pytest.mark.parametrize("what", SETTINGS)
@pytest.mark.usefixtures("settings_put_back")
def test_what_the_host_has_set_is_left_alone(what: str) -> None:
    with pytest.raises(ConformanceError, match="calls of 'shapes' have changed") as error:
        check_vocoder(setting(SETTINGS[what])())
    assert error.value.check == "host"
    assert what in str(error.value)


def test_the_kit_itself_changes_nothing() -> None:
    from melvoc.testing import host

    voc = Good().train()
    before, weights = host.settings(), host.weights(voc)
    check_vocoder(voc)
    assert host.settings() == before
    assert host.weights(voc) == weights
    assert voc.training
