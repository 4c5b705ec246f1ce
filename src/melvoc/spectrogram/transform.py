"""From a waveform to its log-mel spectrogram: the only mel code, for inference, training and evaluation."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from melvoc.arrays import as_tensor, check_layout
from melvoc.audio.resampling import Resampler, resample, whole_rate
from melvoc.errors import SpecError
from melvoc.host import public, warn
from melvoc.nn.window import Window
from melvoc.spectrogram.spec import MelSpec, check_spec

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BLOCK_SAMPLES = 1 << 21  # frames are cut in blocks of about this many samples, to bound memory on long audio


def mel_filters(spec: MelSpec) -> Tensor:
    """The filter bank of a spec.

    Triangles over the FFT's frequencies with the corners of `spec.band_edges()`, computed in float64. With
    `norm="slaney"` each is divided by half its width, so that its area over Hz is 1 (librosa and torchaudio agree).

    Returns:
        `[n_mels, n_fft // 2 + 1]` float32 on the CPU, non-negative; the caller's own copy.
    """
    return constants(spec, torch.device("cpu"), torch.float32)[1].clone()


class MelSpectrogram(nn.Module):
    """The log-mel spectrogram of a spec, on the device and in the type of its input. It has no parameters.

    Differentiable; gradients are finite everywhere: 0 where the magnitude is 0, and where a band is below the floor.

    Shape: waveform `[N]`, `[B, N]` or `[B, 1, N]`, float32 or float64, in [-1, 1], a tensor or a NumPy array; returns
    `[B, n_mels, spec.frames(N)]` in the spec's logarithm, a tensor.

    >>> spec = MelSpec(sample_rate=16000, n_fft=512, hop_length=128, n_mels=40)
    >>> tuple(MelSpectrogram(spec)(torch.zeros(16000)).shape)
    (1, 40, 125)
    """

    def __init__(self, spec: MelSpec) -> None:
        super().__init__()
        check_spec(spec)
        self.spec = spec
        self._warned = False

    def extra_repr(self) -> str:
        """The spec, in the module's repr, which is one line."""
        return repr(self.spec)

    @public
    def forward(self, waveform: Tensor | NDArray[Any], *, sample_rate: int | None = None) -> Tensor:
        """The mel of a whole signal.

        Args:
            waveform: `[N]`, `[B, N]` or `[B, 1, N]` in [-1, 1], a tensor or a NumPy array; values outside are accepted,
                with one warning.
            sample_rate: of the waveform, in Hz; it is resampled if it is not the spec's. None: the spec's.

        Returns:
            `[B, n_mels, spec.frames(N')]`, N' the samples at the spec's rate.

        Raises:
            SpecError: any other shape or type, NaN or Inf, or a signal shorter than the padding.
        """
        wave = self._checked(waveform)
        if sample_rate is not None:
            wave = resample(wave, whole_rate(sample_rate), self.spec.sample_rate)
        _check_length(wave.shape[-1], self.spec)
        return frames_to_mel(_pad(wave, self.spec), self.spec)

    def stream(self, *, sample_rate: int | None = None, cover: bool = False) -> MelStream:
        """A stream that takes the waveform in pieces and returns the frames that one call on the whole would.

        Args:
            sample_rate: as in `forward`.
            cover: whether to append zeros, so that the frames cover every sample and the shortest signal has one.
        """
        return MelStream(self, sample_rate=sample_rate, cover=cover)

    def _checked(self, waveform: Tensor | NDArray[Any]) -> Tensor:
        """`[B, N]`, finite; warns once about values outside [-1, 1]."""
        wave = batch_wave(waveform)
        if wave.numel() == 0:
            return wave
        low, high = torch.stack(torch.aminmax(wave.detach())).tolist()
        if not (math.isfinite(low) and math.isfinite(high)):
            bad = int((~torch.isfinite(wave)).sum())
            raise SpecError(
                f"the waveform has {bad} NaN or Inf among its {wave.numel()} samples; torch.nan_to_num removes them, "
                "but find out where they come from"
            )
        if (low < -1.0 or high > 1.0) and not self._warned:
            self._warned = True
            warn(
                f"this waveform ranges from {low:.4g} to {high:.4g}, but samples are in [-1, 1]; divide it by its "
                "peak (integer PCM by its full scale). Shown once per MelSpectrogram"
            )
        return wave


class MelStream:
    """Computes a mel from a waveform that comes in pieces; made by `MelSpectrogram.stream`.

    The joined frames are those of one call on the whole signal, to float rounding, however the signal is cut: it is
    padded at its true start and end only. It holds fewer than `2 * n_fft` samples of each row.

    Attributes:
        taken: samples that were pushed.
        samples: of the signal at the spec's rate, as far as they are ready; after `flush` all, the appended zeros too.
    """

    def __init__(self, mel: MelSpectrogram, *, sample_rate: int | None = None, cover: bool = False) -> None:
        self._mel, self._cover = mel, cover
        rate = mel.spec.sample_rate
        self._resampler = Resampler(rate if sample_rate is None else whole_rate(sample_rate), rate)
        self._nothing: Tensor | None = None  # [B, 0] of the first piece's rows, type and device
        spec = mel.spec
        self._window = Window(
            lambda padded: frames_to_mel(padded[:, 0], spec),
            span=spec.n_fft,
            stride=spec.hop_length,
            left=spec.pad,
            right=spec.pad,
            mode="reflect" if spec.pad_mode == "reflect" else "zeros",
        )
        self._flushed = False
        self.taken = self.samples = 0

    @public
    def push(self, waveform: Tensor | NDArray[Any]) -> Tensor:
        """Push the next samples.

        Args:
            waveform: `[n]`, `[B, n]` or `[B, 1, n]`; n may be 0. B, type and device are those of the first piece.

        Returns:
            `[B, n_mels, m]`, the frames that are complete; m may be 0.

        Raises:
            SpecError: a piece that does not fit, after which the stream can go on; or a stream that was flushed.
        """
        self._check_open()
        wave = self._mel._checked(waveform)
        first = self._nothing = wave.new_empty(wave.shape[0], 0) if self._nothing is None else self._nothing
        if (wave.shape[0], wave.dtype, wave.device) != (first.shape[0], first.dtype, first.device):
            raise SpecError(
                f"this piece is {wave.shape[0]} rows of {wave.dtype} on {wave.device}, but the stream began with "
                f"{first.shape[0]} of {first.dtype} on {first.device}; continue as it began"
            )
        self.taken += wave.shape[-1]
        return self._frames(self._resampler(wave[:, None], False), last=False)

    @public
    def flush(self) -> Tensor:
        """End the signal.

        Returns:
            `[B, n_mels, m]`, the frames that were still waiting, among them those that reach into the padding.

        Raises:
            SpecError: the signal was shorter than the padding, or the stream was already flushed.
        """
        self._check_open()
        spec = self._mel.spec
        if self._nothing is None:
            _check_length(0, spec)
        assert self._nothing is not None  # a piece was pushed
        rest = self._resampler(self._nothing[:, None], True)
        if self._cover:
            samples = self.samples + rest.shape[-1]
            hops = -(-samples // spec.hop_length)  # and as many frames, whose last one needs
            seen = (hops - 1) * spec.hop_length + spec.n_fft - 2 * spec.pad
            rest = F.pad(rest, (0, max(hops * spec.hop_length, seen, spec.n_fft) - samples))
        _check_length(self.samples + rest.shape[-1], spec)
        self._flushed = True
        return self._frames(rest, last=True)

    def _frames(self, wave: Tensor, *, last: bool) -> Tensor:
        """The frames that the next samples at the spec's rate complete: `[B, 1, n]` to `[B, n_mels, m]`."""
        self.samples += wave.shape[-1]
        mel = self._window(wave, last)
        return mel if mel.shape[-1] else wave.new_zeros(wave.shape[0], self._mel.spec.n_mels, 0)

    def __repr__(self) -> str:
        state = "flushed" if self._flushed else "open"
        return f"<MelStream: {self.taken} samples taken, {state}, {self._mel.spec!r}>"

    def _check_open(self) -> None:
        if self._flushed:
            raise SpecError("this mel stream was flushed and takes no more samples; open a new one with stream()")


def log_mel(wave: Tensor, spec: MelSpec) -> Tensor:
    """The mel of waves at the spec's rate: `[B, N]` to `[B, n_mels, T]`, unchecked, so that nothing waits for a GPU."""
    return frames_to_mel(_pad(wave, spec), spec)


def batch_wave(waveform: Tensor | NDArray[Any]) -> Tensor:
    """A waveform of any accepted shape as a batch.

    Args:
        waveform: `[N]`, `[B, N]` or `[B, 1, N]`, float32 or float64: a tensor or a NumPy array.

    Returns:
        `[B, N]`.

    Raises:
        SpecError: another shape or type.
    """
    waveform = as_tensor(waveform, "the waveform")
    if waveform.dtype not in (torch.float32, torch.float64):
        way_out = ".float()" if waveform.is_floating_point() else ".float() divided by the integers' full scale"
        raise SpecError(f"the waveform is {waveform.dtype}, but it is float32 or float64 in [-1, 1]; pass {way_out}")
    if waveform.dim() == 3 and waveform.shape[1] == 1:
        return waveform[:, 0]
    if waveform.dim() not in (1, 2):
        raise SpecError(
            f"the waveform is {list(waveform.shape)}, but it is [N], [B, N] or [B, 1, N]; several channels go into the "
            "batch (melvoc.audio.fold_channels)"
        )
    check_layout(waveform, "[N], [B, N] or [B, 1, N]")
    return waveform if waveform.dim() == 2 else waveform[None]


def least_samples(spec: MelSpec) -> int:
    """The shortest sound that a mel is made of."""
    return max(spec.pad + 1 if spec.pad_mode == "reflect" else 1, spec.n_fft - 2 * spec.pad)


def _check_length(samples: int, spec: MelSpec) -> None:
    if samples < (least := least_samples(spec)):
        raise SpecError(
            f"the waveform has {samples} samples, but this spec needs at least {least} (n_fft={spec.n_fft}, "
            f"hop_length={spec.hop_length}, {spec.pad} samples of {spec.pad_mode} padding on each side); append zeros"
        )


def _pad(wave: Tensor, spec: MelSpec) -> Tensor:
    """`[B, N]` with the spec's padding on both sides."""
    return F.pad(wave[:, None], (spec.pad, spec.pad), mode=spec.pad_mode)[:, 0]


def frames_to_mel(padded: Tensor, spec: MelSpec) -> Tensor:
    """`[B, n]`, padded, to `[B, n_mels, 1 + (n - n_fft) // hop_length]`, possibly no frames at all."""
    count = 1 + (padded.shape[-1] - spec.n_fft) // spec.hop_length
    if count < 1 or not padded.shape[0]:  # torch's FFT fails on an empty batch
        return padded.new_zeros(padded.shape[0], spec.n_mels, max(0, count))
    _, filters = constants(spec, padded.device, padded.dtype)
    size = max(1, _BLOCK_SAMPLES // (spec.n_fft * max(1, padded.shape[0])))
    blocks = []
    with torch.autocast(padded.device.type, enabled=False):  # a mel in half precision would be a different mel
        for begin in range(0, count, size):
            last = min(begin + size, count) - 1
            part = padded[:, begin * spec.hop_length : last * spec.hop_length + spec.n_fft]
            blocks.append(to_log(magnitudes(part, spec) @ filters.T, spec))
    return torch.cat(blocks, 1).transpose(1, 2)


def magnitudes(padded: Tensor, spec: MelSpec) -> Tensor:
    """What the filters see, `sqrt(re^2 + im^2 + magnitude_eps)^power`: padded `[B, n]` to `[B, T, n_fft // 2 + 1]`."""
    window, _ = constants(spec, padded.device, padded.dtype)
    spectrum: Tensor = torch.fft.rfft(padded.unfold(-1, spec.n_fft, spec.hop_length) * window)
    plain = spec.power == 1.0 and not spec.magnitude_eps
    if plain and not spectrum.requires_grad:
        return spectrum.abs()
    powers = torch.view_as_real(spectrum).square().sum(-1)
    if plain:  # faster than the gradient of abs, which is NaN at denormals; 0 where that of sqrt would not be finite
        return powers.clamp(min=torch.finfo(powers.dtype).tiny).sqrt()
    powers = powers + spec.magnitude_eps
    return powers if spec.power == 2.0 else powers.sqrt()


def to_log(mel: Tensor, spec: MelSpec) -> Tensor:
    """A mel of any shape, in its own unit, to the spec's logarithm."""
    if spec.log == "log1p":
        return mel.log1p()
    mel = mel.clamp(min=spec.log_floor)
    if spec.log == "ln":
        return mel.log()
    return mel.log10() if spec.log == "log10" else mel.log10() * (20.0 / spec.power)


DB_PER_NEPER = 20.0 / math.log(10.0)  # of amplitude


def nepers_per_unit(log: str, power: float) -> float:
    """How many nepers of the mel's own unit one unit of a logarithm (ln, log10 or dB) is."""
    return {"ln": 1.0, "log10": math.log(10.0), "db": math.log(10.0) * power / 20.0}[log]


@lru_cache(maxsize=64)
def constants(spec: MelSpec, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Window `[n_fft]` and filter bank `[n_mels, n_fft // 2 + 1]`, shared by all callers: never write to them.

    Rounded to float32 whatever the dtype, so that a spec means the same numbers everywhere.
    """
    with torch.inference_mode(False):  # otherwise the first caller's mode would stick to them
        return tuple(x.float().to(device, dtype) for x in (_window(spec), _filters(spec)))  # type: ignore[return-value]


def _window(spec: MelSpec) -> Tensor:
    """A periodic Hann window of `win_length`, centred in `n_fft`."""
    phase = torch.arange(spec.win_length, dtype=torch.float64, device="cpu") * (2 * math.pi / spec.win_length)
    left = (spec.n_fft - spec.win_length) // 2
    return F.pad(0.5 - 0.5 * phase.cos(), (left, spec.n_fft - spec.win_length - left))


def _filters(spec: MelSpec) -> Tensor:
    edges = torch.tensor(spec.band_edges(), dtype=torch.float64, device="cpu")[:, None]
    bins = torch.arange(spec.n_bins, dtype=torch.float64, device="cpu") * (spec.sample_rate / spec.n_fft)
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    triangles = torch.minimum(rising, falling).clamp(min=0.0)
    return triangles * (2.0 / (edges[2:] - edges[:-2])) if spec.norm == "slaney" else triangles
