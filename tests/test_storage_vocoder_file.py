"""Vocoders to and from files, bytes and dicts: bit for bit, mapped, and never initialised at random."""

from __future__ import annotations

import copy
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import VOCODERS, neural, random_mel, randomised
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

import melvoc
from melvoc.architectures.hifigan import HiFiGAN, HiFiGANConfig
from melvoc.errors import CheckpointError, MelvocError
from melvoc.griffinlim import GriffinLim
from melvoc.neural import NeuralVocoder
from melvoc.options import LoadOptions
from melvoc.spectrogram.spec import MelSpec
from melvoc.storage import container as checkpoints
from melvoc.storage.vocoder_file import build, describe, from_bytes, pack, save, to_bytes, unpack
from melvoc.vocoder import Vocoder

V2 = HiFiGANConfig(upsample_initial_channel=128)
SPEC_22K = MelSpec.preset("hifigan_22khz_80band_256x")


def hifigan(config: HiFiGANConfig | None = None) -> NeuralVocoder:
    small = config or HiFiGANConfig(upsample_initial_channel=32, resblock="2")
    return neural(randomised(HiFiGAN(small)), name="mine", spec=SPEC_22K, licence="CC0", provenance={"a": "b"})


def all_kinds() -> dict[str, Vocoder]:
    griffin = GriffinLim(spec=MelSpec.preset("distill_v1_48khz_128band"), n_iter=3, momentum=0.3, seed=7, name="gl")
    return {
        "bigvgan": VOCODERS["bigvgan_v2_tiny"],
        "bigvgan_v1": VOCODERS["bigvgan_v1_tiny"],
        "vocos": VOCODERS["vocos_tiny"],
        "hifigan": hifigan(),
        "griffinlim": griffin,
    }


KINDS = all_kinds()


def through_file(voc: Vocoder, folder: Path) -> Vocoder:
    save(voc, folder / "a.safetensors")
    return melvoc.load(folder / "a.safetensors", device="cpu")


def through_bytes(voc: Vocoder, _: Path) -> Vocoder:
    return from_bytes(to_bytes(voc), device="cpu")


def through_pack(voc: Vocoder, _: Path) -> Vocoder:
    return unpack(pack(voc), device="cpu")


def through_torch_save(voc: Vocoder, folder: Path) -> Vocoder:
    torch.save({"vae": torch.ones(2), "vocoder": pack(voc)}, folder / "model.pt")
    return unpack(torch.load(folder / "model.pt", weights_only=True)["vocoder"], device="cpu")


def through_safetensors(voc: Vocoder, _: Path) -> Vocoder:
    return unpack(load_safetensors(save_safetensors(pack(voc))), device="cpu")


WAYS = [through_file, through_bytes, through_pack, through_torch_save, through_safetensors]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("kind", KINDS)
def test_round_trips_bit_for_bit(kind: str, way: Callable[[Vocoder, Path], Vocoder], tmp_path: Path) -> None:
    voc = KINDS[kind]
    back = way(voc, tmp_path)
    assert type(back) is type(voc)
    assert (back.name, back.spec, back.dtype) == (voc.name, voc.spec, voc.dtype)
    assert back.state_dict().keys() == voc.state_dict().keys()
    assert all(torch.equal(back.state_dict()[key], tensor) for key, tensor in voc.state_dict().items())
    assert describe(back).header() == describe(voc).header()
    assert not back.training or kind == "griffinlim"
    assert not any(parameter.requires_grad for parameter in back.parameters())
    mel = random_mel(voc, 5) if kind != "griffinlim" else random_mel(voc, 5).abs()
    assert torch.equal(back.mel_to_waveform(mel), voc.mel_to_waveform(mel))


def test_what_is_packed_is_a_flat_dict_of_plain_tensors() -> None:
    state = pack(KINDS["hifigan"])
    assert all(type(key) is str and type(value) is Tensor for key, value in state.items())
    assert all(value.device.type == "cpu" and not value.requires_grad for value in state.values())


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_packed_is_a_snapshot(kind: str) -> None:
    voc = copy.deepcopy(KINDS[kind])
    state = pack(voc)
    before = {key: tensor.clone() for key, tensor in state.items()}
    with torch.no_grad():
        for parameter in voc.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(state[key], tensor) for key, tensor in before.items())
    twin = unpack(pack(voc), device="cpu")
    assert all(torch.equal(a, b) for a, b in zip(twin.parameters(), voc.parameters(), strict=True))


def test_a_hifigan_v2_file_is_about_4_mb(tmp_path: Path) -> None:
    save(hifigan(V2), tmp_path / "v2.safetensors")
    size = (tmp_path / "v2.safetensors").stat().st_size
    assert 3.6e6 < size < 4.1e6
    assert len(to_bytes(hifigan(V2))) == size


@pytest.mark.parametrize("kind", ["bigvgan", "hifigan", "vocos"])
def test_device_dtype_and_options_reach_every_way_in(kind: str, tmp_path: Path) -> None:
    voc = KINDS[kind]
    save(voc, tmp_path / "a.safetensors")
    options = {"device": "cpu", "dtype": torch.float64, "engine": "torch", "memory": "low"}
    for back in (
        melvoc.load(tmp_path / "a.safetensors", **options),
        from_bytes(to_bytes(voc), **options),
        unpack(pack(voc), **options),
    ):
        assert isinstance(back, NeuralVocoder)
        assert (back.dtype, back.engine_choice, back.memory) == (torch.float64, "torch", "low")


def test_options_that_do_not_exist() -> None:
    with pytest.raises(MelvocError, match="engine='fast', but it is 'auto' or 'torch'"):
        unpack(pack(KINDS["hifigan"]), engine="fast")  # type: ignore[arg-type]
    with pytest.raises(MelvocError, match=r"dtype=torch\.int8, but it is a floating-point"):
        from_bytes(to_bytes(KINDS["hifigan"]), dtype=torch.int8)
    with pytest.raises(MelvocError, match="device='gpu' is not available"):
        from_bytes(to_bytes(KINDS["hifigan"]), device="gpu")


def test_half_precision_weights_come_back_exactly(tmp_path: Path) -> None:
    half = unpack(pack(KINDS["hifigan"]), device="cpu", dtype=torch.bfloat16)
    save(half, tmp_path / "half.safetensors")
    back = melvoc.load(tmp_path / "half.safetensors", device="cpu")
    assert back.dtype == torch.float32
    for key, tensor in half.state_dict().items():
        assert torch.equal(back.state_dict()[key], tensor.float())


# Loading costs nothing that it need not


def test_loading_never_initialises_random_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, voc in KINDS.items():
        save(voc, tmp_path / f"{kind}.safetensors")

    def guarded(real: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def init(*values: Any, **named: Any) -> Tensor:
            tensor = values[0] if values else named["tensor"]
            assert tensor.is_meta, "random weights were initialised"  # on the meta device nothing is drawn
            return real(*values, **named)

        return init

    for name in ("kaiming_uniform_", "uniform_", "normal_", "trunc_normal_", "xavier_uniform_"):
        monkeypatch.setattr(torch.nn.init, name, guarded(getattr(torch.nn.init, name)))
    state = torch.random.get_rng_state()
    for kind in KINDS:
        melvoc.load(tmp_path / f"{kind}.safetensors", device="cpu")
    assert torch.equal(torch.random.get_rng_state(), state), "the application's random numbers were used up"


def mapped(path: Path) -> list[tuple[int, ...]]:
    """The addresses at which a file is mapped."""
    lines = [line for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(str(path))]
    return [tuple(int(end, 16) for end in line.split()[0].split("-")) for line in lines]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux' list of what is mapped into memory")
def test_the_weights_of_a_file_are_mapped(tmp_path: Path) -> None:
    path = tmp_path / "mapped.safetensors"
    save(hifigan(V2), path)
    voc = melvoc.load(path, device="cpu")
    ranges = mapped(path)
    assert ranges
    outside = [
        name
        for name, parameter in voc.named_parameters()
        if not any(low <= parameter.data_ptr() < high for low, high in ranges)
    ]
    assert not outside


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"griffinlim"}))
def test_weights_that_are_read_do_not_depend_on_the_file(kind: str, tmp_path: Path) -> None:
    path, mel = tmp_path / "read.safetensors", random_mel(KINDS[kind], 5)
    save(KINDS[kind], path)
    voc = melvoc.load(path, device="cpu", mmap=False)
    if Path("/proc/self/maps").exists():
        assert not mapped(path)
    expected = voc.mel_to_waveform(mel)
    path.write_bytes(b"")  # in place, under a mapping the end of the process
    torch.testing.assert_close(voc.mel_to_waveform(mel), expected, atol=0, rtol=0)


def test_saving_over_or_deleting_a_mapped_file_leaves_the_loaded_vocoder_as_it_was(tmp_path: Path) -> None:
    path, mel = tmp_path / "voc.safetensors", random_mel(VOCODERS["vocos_tiny"], 5)
    save(VOCODERS["vocos_tiny"], path)
    voc = melvoc.load(path, device="cpu", engine="torch")
    save(neural(randomised(copy.deepcopy(voc.network)), name="other", spec=voc.spec), path)
    assert melvoc.load(path).name == "other"
    path.unlink()
    expected = VOCODERS["vocos_tiny"].mel_to_waveform(mel)
    torch.testing.assert_close(voc.mel_to_waveform(mel), expected, atol=1e-5, rtol=0)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="what a changed mapping shows is the system's affair")
def test_a_mapped_file_that_changes_is_another_sound_and_one_that_is_cut_ends_the_process(tmp_path: Path) -> None:
    save(VOCODERS["vocos_tiny"], tmp_path / "voc.safetensors")
    code = """
import os, melvoc, torch
voc = melvoc.load("voc.safetensors", device="cpu", engine="torch")
mel = torch.full((voc.spec.n_mels, 5), -4.0)
before, size = voc.mel_to_waveform(mel), os.path.getsize("voc.safetensors")
with open("voc.safetensors", "r+b") as file:
    file.seek(size // 2)
    file.write(bytes(size - size // 2))
print(torch.equal(voc.mel_to_waveform(mel), before), flush=True)
os.truncate("voc.safetensors", 0)
voc.mel_to_waveform(mel)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("False\n", -signal.SIGBUS), done.stderr


# What cannot be saved or read


class Plugin(Vocoder):
    def forward(self, mel: Tensor) -> Tensor:
        return mel.new_zeros(mel.shape[0], 1, self.spec.samples(mel.shape[-1]))


class LouderGriffinLim(GriffinLim):
    def forward(self, mel: Tensor) -> Tensor:
        return 2 * super().forward(mel)


class OtherNeural(NeuralVocoder):
    pass


@pytest.mark.parametrize(
    "voc",
    [
        Plugin(name="p", spec=SPEC_22K),
        LouderGriffinLim(name="p"),
        OtherNeural(HiFiGAN(HiFiGANConfig(upsample_initial_channel=16)), name="p", spec=SPEC_22K),
    ],
    ids=lambda voc: type(voc).__name__,
)
@pytest.mark.parametrize("way", ["save", "to_bytes", "pack"])
def test_a_plugins_vocoder_is_refused_by_its_class(voc: Vocoder, way: str, tmp_path: Path) -> None:
    message = rf"'p' is a test_storage_vocoder_file\.{type(voc).__name__}, which melvoc cannot save"
    with pytest.raises(CheckpointError, match=message):
        save(voc, tmp_path / "p.safetensors") if way == "save" else getattr(melvoc, way)(voc)
    assert not list(tmp_path.iterdir())


def test_a_griffin_lim_file_with_weights_in_it(tmp_path: Path) -> None:
    state = pack(KINDS["griffinlim"]) | {"melvoc.weights.extra": torch.ones(1)}
    with pytest.raises(CheckpointError, match="this state has unknown extra; Griffin-Lim has no tensors"):
        unpack(state)


@pytest.mark.parametrize(
    "change", [{"n_iter": 0}, {"momentum": 2}, {"more": 1}, {"spec": None}, {"spec": {"n_fft": 3}}, {"seed": "x"}]
)
def test_a_griffin_lim_file_with_bad_options(change: dict) -> None:
    one = describe(KINDS["griffinlim"])
    one.config.update(change)
    with pytest.raises(CheckpointError, match="these bytes: its options are not Griffin-Lim's"):
        from_bytes(checkpoints.to_bytes(one))


@pytest.mark.parametrize("text", ["model.pt", "g_05000000.pth", "/tmp/generator_v2.pth.tar"])
def test_a_published_checkpoint_is_sent_to_convert(text: str) -> None:
    with pytest.raises(CheckpointError, match=r"load reads melvoc's \.safetensors files; .* with `melvoc convert`"):
        melvoc.load(text)


def test_info_of_a_file_reads_its_header_only(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save(KINDS["hifigan"], path)
    found = melvoc.info(path)
    assert (found.name, found.architecture, found.spec, found.licence) == ("mine", "hifigan", SPEC_22K, "CC0")
    assert found.parameters == sum(parameter.numel() for parameter in KINDS["hifigan"].parameters())
    assert (found.bytes, found.origin, found.distribution) == (path.stat().st_size, "a: b", str(path))


def test_what_does_not_fit_is_refused_from_every_way_in(tmp_path: Path) -> None:
    one = describe(KINDS["hifigan"])
    del one.tensors["conv_post.bias"]
    checkpoints.write(one, tmp_path / "a.safetensors")
    message = r"lacks conv_post\.bias"
    with pytest.raises(CheckpointError, match=rf"a\.safetensors {message}"):
        melvoc.load(tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=f"these bytes {message}"):
        from_bytes(checkpoints.to_bytes(one))
    with pytest.raises(CheckpointError, match=f"this state {message}"):
        unpack(checkpoints.pack(one))
    with pytest.raises(CheckpointError, match=message):
        build(one, LoadOptions(device="cpu"))


def test_a_file_that_load_would_not_know_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(melvoc.CheckpointError, match="mine.bin: a melvoc file ends in .safetensors"):
        melvoc.save(VOCODERS["bigvgan_v1_tiny"], tmp_path / "mine.bin")
    assert not list(tmp_path.iterdir())


def test_only_vocoders_are_saved() -> None:
    with pytest.raises(melvoc.CheckpointError, match="'x' is a str, but only a melvoc.Vocoder can be saved"):
        melvoc.to_bytes("x")  # type: ignore[arg-type]


def test_a_file_needs_no_network(tmp_path: Path) -> None:
    melvoc.save(VOCODERS["bigvgan_v1_tiny"], tmp_path / "mine.safetensors")
    voc = melvoc.load(tmp_path / "mine.safetensors", local_files_only=True, cache_dir=tmp_path)
    assert voc.name == "bigvgan_v1_tiny"
