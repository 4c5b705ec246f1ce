"""Flow2GAN (ICLR 2026, arXiv 2512.23278): from noise to sound in a few Euler steps along a learned flow.

A step estimates the sound from the noisy one and the mel: three branches of ConvNeXt blocks, each on the STFT of the
noisy sound at a resolution of its own, conditioned on the encoded mel and on the time, and the mean of their sounds.
The flow goes from noise at t = 0 to sound at t = 1. Parameters are named as in the published checkpoint
(`cond_encoder.*`, `estimators.*`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from melvoc.architecture import Architecture, Layout, NetworkConfig, Pin
from melvoc.errors import OptionError, quoted, reason
from melvoc.nn.framing import End, Repeat, Select, ToFrames, ToSamples
from melvoc.nn.graph import Branches, Chain, Map, Node, add, concatenate, mean
from melvoc.nn.layers import BiasNorm, Conv1d, FrameScale, PReLU
from melvoc.nn.noise import Noise
from melvoc.nn.stft import STFT, InverseSTFT
from melvoc.spectrogram.spec import MelSpec

LONGEST_PERIOD = 10_000  # of the time embedding's sinusoids, as in Vaswani et al. 2017
TIME_SCALE = 1000  # times t, as published


@dataclass(frozen=True, kw_only=True)
class Flow2GANConfig(NetworkConfig):
    """Hyperparameters of the network. The defaults are those of the published 24 kHz model with one step.

    Attributes:
        n_mels: mel bands of the input.
        hop_length: samples of sound per mel frame.
        n_timesteps: Euler steps; a checkpoint is trained for its number.
        n_ffts: of each branch's STFT.
        hop_lengths: of each branch's STFT; each divides `hop_length`.
        widths: channels of each branch.
        num_layers: ConvNeXt blocks of each branch.
        kernel_sizes: of each branch's depthwise convolutions.
        hidden_factor: channels inside a branch's blocks, as a multiple of its own.
        time_channels: of the time embedding, an even number from 4.
        encoded: whether the mel is encoded before the branches see it.
        encoder_channels: of the encoder.
        encoder_layers: ConvNeXt blocks of the encoder.
        encoder_kernel_size: of its depthwise convolutions.
        encoder_hidden_factor: as `hidden_factor`, of the encoder.
        residual_scale: whether the skipped signals have factors.
        predicts: what a branch estimates: the sound, or the flow's velocity.
        reduction: of the branches' estimates.
        noise_scale: standard deviation of the noise, in thousandths of full scale.

    Raises:
        OptionError: the values do not describe a network.
    """

    n_mels: int = 100
    hop_length: int = 256
    n_timesteps: int = 1
    n_ffts: tuple[int, ...] = (512, 256, 128)
    hop_lengths: tuple[int, ...] = (256, 128, 64)
    widths: tuple[int, ...] = (768, 512, 384)
    num_layers: tuple[int, ...] = (8, 8, 8)
    kernel_sizes: tuple[int, ...] = (7, 7, 7)
    hidden_factor: int = 3
    time_channels: int = 512
    encoded: bool = True
    encoder_channels: int = 512
    encoder_layers: int = 4
    encoder_kernel_size: int = 7
    encoder_hidden_factor: int = 3
    residual_scale: bool = True
    predicts: Literal["sound", "velocity"] = "sound"
    reduction: Literal["mean", "sum"] = "mean"
    noise_scale: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        each = {name: len(getattr(self, name)) for name in PER_BRANCH}
        if len(set(each.values())) > 1:
            raise OptionError(f"{each}, but each has an entry for each branch")
        for n_fft, hop in zip(self.n_ffts, self.hop_lengths, strict=True):
            if n_fft % 2 or hop > n_fft // 2 or self.hop_length % hop:
                raise OptionError(
                    f"a branch has n_fft={n_fft} and hop_length={hop}, but n_fft is even, the hop at most half of it, "
                    f"and the mel's hop_length={self.hop_length} a multiple of the hop"
                )
        if even := [size for size in (*self.kernel_sizes, self.encoder_kernel_size) if size % 2 == 0]:
            raise OptionError(f"a kernel size is {even[0]}, but they are odd")
        if self.time_channels % 2 or self.time_channels < 4:
            raise OptionError(f"time_channels={self.time_channels}, but it is an even number from 4")
        if self.n_timesteps > MOST_STEPS:
            raise OptionError(f"n_timesteps={self.n_timesteps}, but at most {MOST_STEPS}; published are 1, 2 and 4")
        for name, allowed in (("predicts", ("sound", "velocity")), ("reduction", ("mean", "sum"))):
            if getattr(self, name) not in allowed:
                raise OptionError(f"{name}={quoted(getattr(self, name))}, but it is one of {', '.join(allowed)}")

    @property
    def frame_values(self) -> int:
        """Values per mel frame of the largest signal inside."""
        inside = zip(self.widths, self.hop_lengths, self.n_ffts, strict=True)
        branches = [
            max(width * self.hidden_factor, width + self.condition, n_fft + 2) * self.hop_length // hop
            for width, hop, n_fft in inside
        ]
        encoder = self.encoder_channels * self.encoder_hidden_factor if self.encoded else 0
        return max(*branches, encoder, self.condition * self.hidden_factor, self.conditions + self.hop_length)

    @property
    def condition(self) -> int:
        """Channels of the mel as the branches see it."""
        return self.encoder_channels if self.encoded else self.n_mels

    @property
    def conditions(self) -> int:
        """Channels of what the branches make of it, below one another."""
        return self.condition * len(self.n_ffts)

    @classmethod
    def from_published(cls, values: Mapping[str, Any]) -> Self:
        """From the arguments of the published `MelAudioGenerator`, and `n_timesteps`.

        Raises:
            OptionError: a missing or an unknown argument, or a value that no published model has.
        """
        if odd := [key for key in values if key not in (*ARGUMENTS, *OWN, *TRAINING)]:
            raise OptionError(f"{quoted(odd[0])} is no argument of MelAudioGenerator; remove it")
        given = {name: values[key] for key, name in ARGUMENTS.items() if key in values}
        if "n_timesteps" not in given:
            raise OptionError("it does not say n_timesteps, the steps that the checkpoint was trained for; add it")
        scale = values.get("init_noise_scale", 0.1)
        number = isinstance(scale, int | float) and not isinstance(scale, bool) and 0.001 <= scale <= LOUDEST_NOISE
        if not number or abs(1000 * scale - round(1000 * scale)) > 1e-6:
            raise OptionError(
                f"init_noise_scale={quoted(scale)}, but it is a number of thousandths from 0.001 to {LOUDEST_NOISE}; "
                "0.1 is published"
            )
        return cls(
            **given,
            noise_scale=round(1000 * scale),
            predicts="sound" if values.get("pred_x1", True) else "velocity",
            residual_scale=values.get("residual_scale", 1.0) is not None,
        )


PER_BRANCH = ("n_ffts", "hop_lengths", "widths", "num_layers", "kernel_sizes")
MOST_STEPS = 64
LOUDEST_NOISE = 1000
# The published constructor's arguments that describe the network, with their names here.
ARGUMENTS = {
    "n_timesteps": "n_timesteps",
    "n_mels": "n_mels",
    "mel_hop_length": "hop_length",
    "n_ffts": "n_ffts",
    "hop_lengths": "hop_lengths",
    "channels": "widths",
    "num_layers": "num_layers",
    "conv_kernel_sizes": "kernel_sizes",
    "hidden_factor": "hidden_factor",
    "time_embed_channels": "time_channels",
    "use_cond_encoder": "encoded",
    "cond_enc_channels": "encoder_channels",
    "cond_enc_num_layers": "encoder_layers",
    "cond_enc_conv_kernel_size": "encoder_kernel_size",
    "cond_enc_hidden_factor": "encoder_hidden_factor",
    "branch_reduction": "reduction",
}
OWN = ("sampling_rate", "mel_n_fft", "init_noise_scale", "pred_x1", "residual_scale")  # read one by one
TRAINING = (
    "spec_scaling_loss", "loss_n_filters", "loss_n_fft", "loss_hop_length", "loss_power", "loss_eps", "loss_scale_min",
    "loss_scale_max", "branch_dropout", "max_add_noise_scale",
)  # fmt: skip


class Flow2GAN(nn.Module):
    """The network.

    Args:
        config: its hyperparameters.

    Shape:
        mel `[B, n_mels, T]` to wave `[B, 1, T * hop_length]`, not clamped.
    """

    def __init__(self, config: Flow2GANConfig) -> None:
        super().__init__()
        self.config = config
        if config.encoded:
            self.cond_encoder = Encoder(config)
        self.estimators = nn.ModuleList(Estimator(config, number) for number in range(len(config.n_ffts)))
        self.reseed(0)

    def reseed(self, seed: int) -> None:
        """Begin with other noise from now on."""
        scale = self.config.noise_scale / 1000
        self.graph: Node = self.from_noise(
            Chain((Noise(self.config.hop_length, seed, by_row=False), Map(partial(torch.mul, other=scale))))
        )

    def from_noise(self, noise: Node) -> Node:
        """The expression that begins with a node for the noise `[B, hop_length, T]`: each frame is a hop of samples."""
        config = self.config
        encoder = (Select(0, config.n_mels), *(self.cond_encoder.nodes if config.encoded else ()))
        conditions = Branches(tuple(estimator.decoder.condition for estimator in self.estimators), concatenate)  # type: ignore[misc, union-attr]
        nodes: list[Node] = [Branches((Chain((*encoder, conditions)), noise), concatenate)]
        for step in range(config.n_timesteps):
            moved = self._step(step)
            last = step == config.n_timesteps - 1
            nodes.append(moved if last else Branches((Select(0, config.conditions), moved), concatenate))
        return Chain((*nodes, ToSamples(config.hop_length)))

    def _step(self, step: int) -> Node:
        """One Euler step: conditions and noisy sound `[B, conditions + hop_length, T]` to the next sound."""
        config, rest = self.config, self.config.n_timesteps - step
        branches = tuple(Chain(estimator.nodes(step)) for estimator in self.estimators)  # type: ignore[operator]
        estimate = Branches(branches, mean if config.reduction == "mean" else add)
        sound = Select(config.conditions, config.conditions + config.hop_length)
        sounds = config.predicts == "sound"
        move = partial(towards, share=1 / rest) if sounds else partial(along, length=1 / config.n_timesteps)
        return Branches((sound, Chain((estimate, ToFrames(config.hop_length)))), move)

    def forward(self, mel: Tensor) -> Tensor:
        """Run on the complete signal `[B, C, T]`."""
        return self.graph(mel)


class Encoder(nn.Module):
    """ConvNeXt blocks over the mel: `[B, n_mels, T]` to `[B, encoder_channels, T]`.

    Args:
        config: of the network.
    """

    def __init__(self, config: Flow2GANConfig) -> None:
        super().__init__()
        width = config.encoder_channels
        self.in_proj = Conv1d(config.n_mels, width, 3)
        self.in_norm = BiasNorm(width)
        blocks = [
            Block(width, config.encoder_hidden_factor, config.encoder_kernel_size, config)
            for _ in range(config.encoder_layers)
        ]
        self.blocks = nn.ModuleList(blocks)
        self.nodes: tuple[Node, ...] = (self.in_proj, Map(self.in_norm), *[block.node() for block in blocks])


class Estimator(nn.Module):
    """A branch, from the noisy sound to an estimate, through the STFT at its own resolution.

    Args:
        config: of the network.
        number: of the branch.
    """

    def __init__(self, config: Flow2GANConfig, number: int) -> None:
        super().__init__()
        n_fft, hop = config.n_ffts[number], config.hop_lengths[number]
        sound = (Select(config.conditions, config.conditions + config.hop_length), ToSamples(config.hop_length))
        own = Select(number * config.condition, (number + 1) * config.condition)
        self.fft = STFT(n_fft, hop)
        self.sound: tuple[Node, ...] = (*sound, self.fft)
        self.decoder = Decoder(config, number)
        # A centred STFT has a frame more than there are hops, whose condition is what is made of zeros.
        self.mel: tuple[Node, ...] = (
            own, Repeat(config.hop_length // hop), End(self.decoder.condition, config.condition)
        )  # fmt: skip
        self.ifft = InverseSTFT(n_fft, hop, trim=True)

    def nodes(self, step: int) -> tuple[Node, ...]:
        """Conditions and sound `[B, conditions + hop_length, T]` to the estimate `[B, 1, T * hop_length]`."""
        return (*self.decoder.nodes(self.sound, self.mel, step), self.ifft)


class Decoder(nn.Module):
    """ConvNeXt blocks over the frames of one resolution.

    Args:
        config: of the network.
        number: of the branch.
    """

    def __init__(self, config: Flow2GANConfig, number: int) -> None:
        super().__init__()
        width, bins, kernel_size = config.widths[number], config.n_ffts[number] + 2, config.kernel_sizes[number]
        hidden = config.condition * config.hidden_factor
        self.in_proj = Conv1d(bins, width, 1)
        self.in_norm = BiasNorm(width)
        self.cond_mlp = nn.Sequential(
            Conv1d(config.condition, hidden, 1), PReLU(hidden), Conv1d(hidden, config.condition, 1)
        )
        widen, act, narrow = self.cond_mlp
        # Of each mel frame on its own, and the same in each step: so it runs once, before the frames are repeated.
        self.condition: Node = Chain((widen, Map(act), narrow))  # type: ignore[arg-type]
        layers = range(config.num_layers[number])
        self.blocks = nn.ModuleList(Block(width, config.hidden_factor, kernel_size, config, timed=True) for _ in layers)
        self.out_proj = Conv1d(width, bins, 1)
        self.kept = Select(width, width + config.condition)

    def nodes(self, sound: tuple[Node, ...], mel: tuple[Node, ...], step: int) -> tuple[Node, ...]:
        """From what `sound` makes a spectrum of, and `mel` a condition, to the estimate's spectrum."""
        spectrum = Chain((*sound, self.in_proj, Map(self.in_norm)))
        blocks: list[Node] = [block.node(step) for block in self.blocks]  # type: ignore[operator]
        carried = [Branches((block, self.kept), concatenate) for block in blocks[:-1]]
        return (Branches((spectrum, Chain(mel)), concatenate), *carried, blocks[-1], self.out_proj)


class Block(nn.Module):
    """A ConvNeXt block: a depthwise convolution and a two-layer perceptron per frame, around which the signal skips.

    Args:
        width: channels.
        factor: channels inside, as a multiple of them.
        kernel_size: of the depthwise convolution.
        config: of the network.
        timed: whether a condition is added, whose channels follow the signal's, and factors depend on the time.
    """

    def __init__(
        self, width: int, factor: int, kernel_size: int, config: Flow2GANConfig, *, timed: bool = False
    ) -> None:
        super().__init__()
        self.width, self.timed = width, timed
        self.dwconv = Conv1d(width, width, kernel_size, groups=width)
        self.norm = BiasNorm(width)
        self.pwconv1 = Conv1d(width, width * factor, 1)
        self.act = PReLU(width * factor)
        self.pwconv2 = Conv1d(width * factor, width, 1)
        if timed:
            self.cond_proj = Conv1d(config.condition, width, 1)
            self.factors = nn.ParameterList(torch.ones(width) for _ in range(config.n_timesteps))
        self.residual_scale = ChannelScale(width) if config.residual_scale else None

    def node(self, step: int = 0) -> Node:
        """The block as it is in a step: `[B, width, T]`, and the condition's channels, to `[B, width, T]`."""
        perceptron = (self.pwconv1, Map(self.act), self.pwconv2)
        body: tuple[Node, ...] = (self.dwconv, Map(self.norm))
        skipped: tuple[Node, ...] = ()
        if self.timed:
            condition = (Select(self.width, self.width + self.cond_proj.in_channels), self.cond_proj)
            skipped = (Select(0, self.width),)
            body = (
                Branches((Chain((*skipped, *body)), Chain(condition)), add),
                Map(FrameScale(self.factors, str(step))),
            )
        if self.residual_scale is not None:
            skipped = (*skipped, Map(FrameScale(self.residual_scale, "scale")))
        return Branches((Chain(skipped), Chain((*body, *perceptron))), add)


class ChannelScale(nn.Module):
    """One factor per channel, `[C, 1]` as in the published checkpoints."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels, 1))


def towards(parts: Iterable[Tensor], *, share: float) -> Tensor:
    """An Euler step from a noisy sound towards its estimate, which it reaches where `share` is 1."""
    noisy, estimate = parts
    return noisy + (estimate - noisy) * share


def along(parts: Iterable[Tensor], *, length: float) -> Tensor:
    """An Euler step of some length along a velocity."""
    noisy, velocity = parts
    return noisy + velocity * length


def fold_time(tensors: dict[str, Tensor], config: NetworkConfig) -> dict[str, Tensor]:
    """The tensors with the factors of each step in place of the layers that make them of the time.

    A checkpoint is used at the times of its own steps only, so that what is left of the time embedding (sinusoids as in
    Vaswani et al. 2017, then a perceptron, then a linear map per block) is `1 + map(perceptron(sinusoids))` at each.

    Raises:
        OptionError: such a layer is missing, or of another shape.
    """
    assert isinstance(config, Flow2GANConfig)
    made = {name: tensor for name, tensor in tensors.items() if ".time_" not in name}
    steps = torch.arange(config.n_timesteps, dtype=torch.float32) / config.n_timesteps
    sines = sinusoids(steps, config.time_channels)
    try:
        for number, layers in enumerate(config.num_layers):
            decoder = f"estimators.{number}.decoder"
            hidden = F.silu(_linear(tensors, f"{decoder}.time_mlp.0", sines))
            times = _linear(tensors, f"{decoder}.time_mlp.2", hidden)
            for layer in range(layers):
                block = f"{decoder}.blocks.{layer}"
                factors = 1.0 + _linear(tensors, f"{block}.time_embed_proj", times)
                made |= {f"{block}.factors.{step}": row.clone() for step, row in enumerate(factors)}
    except (KeyError, RuntimeError) as error:
        raise OptionError(f"its time embedding is not that of the configuration ({reason(error)})") from error
    return made


def sinusoids(times: Tensor, channels: int) -> Tensor:
    """Sines and cosines of times from 0 to 1: `[N]` to `[N, channels]`."""
    rates = torch.exp(torch.arange(channels // 2).float() * -(math.log(LONGEST_PERIOD) / (channels // 2 - 1)))
    angles = TIME_SCALE * times[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def _linear(tensors: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    return F.linear(x, tensors[f"{name}.weight"].float(), tensors[f"{name}.bias"].float())


def mel_of(values: Mapping[str, Any]) -> MelSpec:
    """torchaudio's defaults at the configured size, then a clipped natural log.

    Raises:
        SpecError: values that no mel has.
    """
    sizes = {"sampling_rate": 24000, "mel_n_fft": 1024, "mel_hop_length": 256, "n_mels": 100} | {
        key: values[key] for key in ("sampling_rate", "mel_n_fft", "mel_hop_length", "n_mels") if key in values
    }
    return MelSpec(
        sample_rate=sizes["sampling_rate"],
        n_fft=sizes["mel_n_fft"],
        hop_length=sizes["mel_hop_length"],
        n_mels=sizes["n_mels"],
        mel_scale="htk",
        norm=None,
        log_floor=1e-7,
        magnitude_eps=0.0,
        center=True,
    )


# The published models, whose configurations stand in code, not beside the weights.
FILE_24K: Mapping[str, Any] = {
    "sampling_rate": 24000,
    "mel_n_fft": 1024,
    "mel_hop_length": 256,
    "n_mels": 100,
    "n_ffts": (512, 256, 128),
    "hop_lengths": (256, 128, 64),
}
FILE_44K: Mapping[str, Any] = {
    "sampling_rate": 44100,
    "mel_n_fft": 2048,
    "mel_hop_length": 512,
    "n_mels": 128,
    "n_ffts": (1024, 512, 256),
    "hop_lengths": (512, 256, 128),
}
FILES: Mapping[str, tuple[str, Mapping[str, Any], int]] = {
    "flow2gan_libritts_24khz": ("libritts-mel", FILE_24K, 67_395_750),
    "flow2gan_24khz": ("universal-24k-mel", FILE_24K, 67_395_750),
    "flow2gan_44khz_128band_512x": ("universal-44k-mel-128band-512x", FILE_44K, 68_586_534),
}
STEPS = (1, 2, 4)
FACTORS = 13_312  # parameters that a step adds


def _steps_of(file: str) -> int | None:
    """The steps that a file's name says, if it does."""
    said = re.search(r"(\d+)-?step", file)
    return None if said is None else int(said[1])


def check_steps(config: Flow2GANConfig, file: str) -> None:
    """Check that a configuration has the steps that the weights' file is named after: nothing in it says them.

    Raises:
        OptionError: it has others.
    """
    said = _steps_of(file)
    if said not in (None, config.n_timesteps):
        raise OptionError(
            f"n_timesteps={config.n_timesteps}, but the file's name says {said}, and the steps belong to the weights; "
            f"give n_timesteps={said}, or rename the file if its name is wrong"
        )


def _of_file(values: Mapping[str, Any]) -> Callable[[str], Mapping[str, Any]]:
    """A published configuration, given the name of the weights' file, which says the steps."""

    def complete(file: str) -> Mapping[str, Any]:
        said = _steps_of(file)
        if said is None:
            raise OptionError(
                f"the name of {quoted(file)} does not say its steps, as universal-24k-mel-2-step.pt does; rename it, "
                "or give a JSON of the constructor's arguments with n_timesteps"
            )
        return {**values, "n_timesteps": said}

    return complete


def _pin(name: str, steps: int) -> Pin:
    file, values, parameters = FILES[name]
    return Pin(
        name=f"{name}_{steps}step",
        repo="k2-fsa/Flow2GAN",
        filename=f"{file}-{steps}-step.pt",
        revision=None,
        bytes=None,
        sha256=None,
        config=Flow2GANConfig.from_published({**values, "n_timesteps": steps}),
        spec=MelSpec.preset(f"{name}_{steps}step"),
        parameters=parameters + steps * FACTORS,
        licence="Apache-2.0",
    )


ARCHITECTURE = Architecture(
    name="flow2gan",
    title="Flow2GAN",
    config=Flow2GANConfig,
    network=Flow2GAN,
    layouts=(
        Layout(
            title="the arguments of Flow2GAN's MelAudioGenerator",
            recognises=lambda values: "mel_hop_length" in values and "n_ffts" in values,
            config=Flow2GANConfig.from_published,
            spec=mel_of,
            adapt=fold_time,
            not_weights=re.compile(r"^loss_spec\.|^estimators\.\d+\.i?fft\.window$"),
            files=((r"(libritts-mel|universal-(24k-mel|44k-mel-128band-512x))-[124]-step\.pt", "config.json"),),
        ),
    ),
    configurations={name: _of_file(values) for name, (_, values, _) in FILES.items()},
    check_name=check_steps,
    pins=tuple(_pin(name, steps) for name in FILES for steps in STEPS),
    speed=lambda config: "medium" if config.n_timesteps == 1 else "slow",
)
