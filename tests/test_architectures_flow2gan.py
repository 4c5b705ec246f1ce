"""Flow2GAN: what the published code computes, from its own noise and from melvoc's.

`golden/flow2gan_tiny` is the published `MelAudioGenerator` at a small size: `wav.N` is the sound of N steps that begin
with `noise`, computed in float64.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import GOLDEN, pieces, vocoder
from safetensors.torch import load_file, save_file
from torch import Tensor

import melvoc
from melvoc.architectures.flow2gan import ARCHITECTURE, FILE_24K, FILE_44K, Flow2GAN, Flow2GANConfig
from melvoc.errors import CheckpointError, OptionError
from melvoc.neural import NeuralVocoder
from melvoc.nn.framing import Select, ToFrames
from melvoc.nn.graph import Engine, join
from melvoc.options import LoadOptions
from melvoc.spectrogram.spec import MelSpec
from melvoc.storage.conversion import convert
from melvoc.storage.vocoder_file import build

STEPS = (1, 2, 4)
TENSORS = load_file(GOLDEN / "flow2gan_tiny.safetensors")
ARGUMENTS: dict[str, Any] = json.loads((GOLDEN / "flow2gan_tiny.json").read_text())
WEIGHTS = {key: tensor for key, tensor in TENSORS.items() if key.startswith("model.")}
BARE = {key.removeprefix("model."): tensor for key, tensor in WEIGHTS.items()}
MEL, NOISE = TENSORS["mel"], TENSORS["noise"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """melvoc files by their number of steps."""
    folder = tmp_path_factory.mktemp("flow2gan")
    torch.save({"model": BARE}, folder / "published.pt")
    made = {}
    for steps in STEPS:
        checkpoint = convert(folder / "published.pt", config={**ARGUMENTS, "n_timesteps": steps})
        made[steps] = folder / f"{steps}.safetensors"
        melvoc.save(build(checkpoint, LoadOptions(device="cpu")), made[steps])
    return made


def loaded(files: dict[int, Path], steps: int, **options: Any) -> NeuralVocoder:
    voc = melvoc.load(files[steps], device="cpu", **options)
    assert isinstance(voc, NeuralVocoder)
    return voc


def given_noise(voc: NeuralVocoder) -> Any:
    """The expression with noise that is given, as further channels."""
    network, config = voc.network, voc.config
    assert isinstance(network, Flow2GAN)
    return network.from_noise(Select(config.n_mels, config.n_mels + config.hop_length))


def with_noise() -> Tensor:
    return torch.cat([MEL, ToFrames(128)(NOISE[:, None])], dim=1)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("engine", ["auto", "torch"])
def test_the_published_sound_of_the_published_noise(files: dict[int, Path], steps: int, engine: str) -> None:
    voc = loaded(files, steps, engine=engine)
    machine = voc.engine().open(given_noise(voc))
    with torch.no_grad():
        wave = join(
            *[machine(part, last) for part, last in zip(with_noise().split(11, -1), (False, True), strict=True)]
        )
    torch.testing.assert_close(wave[:, 0], TENSORS[f"wav.{steps}"], atol=2e-6, rtol=0)


def test_in_float64_only_the_rounding_of_the_golden_file_is_left(files: dict[int, Path]) -> None:
    voc = loaded(files, 4, dtype=torch.float64, engine="torch")
    with torch.no_grad():
        wave = given_noise(voc)(with_noise().double())
    torch.testing.assert_close(wave[:, 0].float(), TENSORS["wav.4"], atol=3e-7, rtol=0)


@settings(deadline=None, max_examples=15)
@given(
    steps=st.sampled_from(STEPS),
    cuts=st.lists(st.integers(0, 21), max_size=4),
    engine=st.sampled_from(["auto", "torch"]),
)
def test_any_pieces_join_to_the_whole(files: dict[int, Path], steps: int, cuts: list[int], engine: str) -> None:
    voc = loaded(files, steps, engine=engine)
    whole = voc.mel_to_waveform(MEL, spec=voc.spec)
    with voc.stream(spec=voc.spec) as stream:
        parts = [stream.push(part) for part in pieces(MEL, cuts)]
        joined = torch.cat([*parts, stream.flush()], dim=-1)
    torch.testing.assert_close(joined, whole, atol=5e-6, rtol=0)


def test_a_row_does_not_depend_on_its_batch_nor_on_its_lengths(files: dict[int, Path]) -> None:
    voc = loaded(files, 2)
    whole = voc.mel_to_waveform(MEL, spec=voc.spec)
    some = voc.mel_to_waveform(MEL, spec=voc.spec, lengths=[21, 9])
    torch.testing.assert_close(some[0], whole[0], atol=2e-6, rtol=0)
    short = voc.mel_to_waveform(MEL[1, :, :9], spec=voc.spec)
    torch.testing.assert_close(some[1, :, : 9 * 128], short[0], atol=2e-6, rtol=0)
    assert not bool(some[1, :, 9 * 128 :].any())


@pytest.mark.parametrize("steps", STEPS)
def test_it_keeps_every_promise(files: dict[int, Path], steps: int) -> None:
    melvoc.testing.check_vocoder(loaded(files, steps))


def test_a_seed_gives_its_own_sound_again(files: dict[int, Path]) -> None:
    first, again, other = (
        loaded(files, 1, seed=seed).mel_to_waveform(MEL, spec=MelSpec.from_dict(loaded(files, 1).spec.to_dict()))
        for seed in (3, 3, 4)
    )
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, atol=1e-2)
    assert torch.equal(loaded(files, 1).mel_to_waveform(MEL), loaded(files, 1, seed=0).mel_to_waveform(MEL))


def test_a_seed_is_for_what_draws_noise() -> None:
    with pytest.raises(OptionError, match="seed=-1, but it is a whole number from 0"):
        LoadOptions(device="cpu", seed=-1)
    with pytest.raises(OptionError, match="draws no noise, and always gives the same sound; omit it"):
        melvoc.from_bytes(melvoc.to_bytes(vocoder("vocos_tiny")), seed=1)


def test_a_seed_for_a_stored_griffin_lim_replaces_its_own() -> None:
    blob = melvoc.to_bytes(melvoc.load("griffinlim", seed=1))
    assert [melvoc.from_bytes(blob, seed=seed).seed for seed in (None, 2)] == [1, 2]  # type: ignore[attr-defined]


def test_the_steps_belong_to_the_file(files: dict[int, Path]) -> None:
    with pytest.raises(OptionError, match="takes no option 'n_timesteps'"):
        loaded(files, 1, n_timesteps=2)


WRAPPED = {
    "a bare state dict": lambda: BARE,
    "as published": lambda: {"model": BARE},
    "from DDP, with the loss's filters": lambda: (
        {"model": {f"module.{key}": tensor for key, tensor in BARE.items()} | {"module.loss_spec.fb": torch.ones(3)}}
    ),
}


@pytest.mark.parametrize("wrapped", WRAPPED)
def test_checkpoints_in_every_wrapper(wrapped: str, tmp_path: Path) -> None:
    torch.save(WRAPPED[wrapped](), tmp_path / "x.pt")
    checkpoint = convert(tmp_path / "x.pt", config={**ARGUMENTS, "n_timesteps": 2})
    assert not any("time" in key or "window" in key for key in checkpoint.tensors)
    voc = build(checkpoint, LoadOptions(device="cpu"))
    with torch.no_grad():
        wave = given_noise(voc)(with_noise())
    torch.testing.assert_close(wave[:, 0], TENSORS["wav.2"], atol=2e-6, rtol=0)


def test_safetensors_below_a_prefix(tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / "x.safetensors")
    assert convert(tmp_path / "x.safetensors", config={**ARGUMENTS, "n_timesteps": 1}).architecture == "flow2gan"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"n_timesteps": None}, "n_timesteps=None, but it is a whole number"),
        ({"n_timesteps": 65}, "n_timesteps=65, but at most 64"),
        ({"hop_lengths": [128, 64, 48]}, "mel's hop_length=128 a multiple of the hop"),
        ({"channels": [24, 16]}, "'widths': 2, .* but each has an entry for each branch"),
        ({"conv_kernel_sizes": [7, 7, 6]}, "a kernel size is 6, but they are odd"),
        ({"branch_reduction": "max"}, "reduction='max', but it is one of mean, sum"),
        ({"init_noise_scale": "loud"}, "init_noise_scale='loud', but it is a number of thousandths"),
        ({"init_noise_scale": 0.1005}, "init_noise_scale=0.1005, but it is a number of thousandths"),
        ({"init_noise_scale": float("nan")}, "init_noise_scale=nan, but it is a number of thousandths"),
        ({"init_noise_scale": 0.0}, "init_noise_scale=0.0, but it is a number of thousandths from 0.001 to 1000"),
        ({"init_noise_scale": 1e308}, r"init_noise_scale=1e\+308, but it is a number of thousandths"),
        ({"init_noise_scale": 10**400}, "but it is a number of thousandths"),
        ({"time_embed_channels": 15}, "time_channels=15, but it is an even number from 4"),
        ({"n_heads": 3}, "'n_heads' is no argument of MelAudioGenerator"),
    ],
)
def test_configurations_that_are_none(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Flow2GANConfig.from_published({**ARGUMENTS, "n_timesteps": 1, **changed})


@pytest.mark.parametrize("thousandths", [1, 57, 100, 290, 570, 1001])
def test_every_whole_number_of_thousandths_is_read(thousandths: int) -> None:
    values = {**ARGUMENTS, "n_timesteps": 1, "init_noise_scale": thousandths / 1000}
    assert Flow2GANConfig.from_published(values).noise_scale == thousandths


def test_a_checkpoint_is_read_whatever_torchs_default_type_is(tmp_path: Path) -> None:
    torch.save(BARE, tmp_path / "x.pt")
    before = convert(tmp_path / "x.pt", config={**ARGUMENTS, "n_timesteps": 2}).tensors
    torch.set_default_dtype(torch.float64)
    try:
        after = convert(tmp_path / "x.pt", config={**ARGUMENTS, "n_timesteps": 2}).tensors
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_largest_signal_inside() -> None:
    """Of narrow branches that is the signal with its condition, four times as fast as the mel."""
    assert Flow2GANConfig(widths=(64, 64, 64)).frame_values == (64 + 512) * 4
    assert Flow2GANConfig().frame_values == 384 * 3 * 4


def test_other_forms_of_the_network_run_in_pieces_too() -> None:
    torch.manual_seed(1)
    config = Flow2GANConfig(
        n_mels=6, hop_length=16, n_timesteps=2, n_ffts=(32, 16), hop_lengths=(16, 8), widths=(8, 6), num_layers=(1, 2),
        kernel_sizes=(3, 5), time_channels=4, encoded=False, residual_scale=False, predicts="velocity", reduction="sum",
    )  # fmt: skip
    network, mel = Flow2GAN(config), torch.randn(2, 6, 15)
    with torch.no_grad():
        whole, machine = network(mel), Engine().open(network.graph)
        joined = join(*[machine(part, last) for part, last in zip(mel.split(8, -1), (False, True), strict=True)])
    assert whole.shape == (2, 1, 240)
    torch.testing.assert_close(joined, whole, atol=1e-6, rtol=0)


def test_a_checkpoint_says_its_steps_or_is_asked_for_them(tmp_path: Path) -> None:
    torch.save({"model": BARE}, tmp_path / "universal-24k-mel-4-step.pt")
    with pytest.raises(
        CheckpointError, match="time embedding is not that of the configuration"
    ):  # which was found: it is larger
        convert(tmp_path / "universal-24k-mel-4-step.pt", config="flow2gan_24khz")
    torch.save({"model": BARE}, tmp_path / "mine.pt")
    with pytest.raises(CheckpointError, match="name of 'mine.pt' does not say its steps.*rename it, or give a JSON"):
        convert(tmp_path / "mine.pt", config="flow2gan_24khz")
    with pytest.raises(
        CheckpointError, match="does not say n_timesteps, the steps that the checkpoint was trained for"
    ):
        convert(tmp_path / "mine.pt", config=ARGUMENTS)
    maimed = {key: tensor for key, tensor in BARE.items() if "time_mlp.0.weight" not in key}
    torch.save(maimed, tmp_path / "mine.pt")
    with pytest.raises(CheckpointError, match="its time embedding is not that of the configuration"):
        convert(tmp_path / "mine.pt", config={**ARGUMENTS, "n_timesteps": 1})


def test_steps_that_the_files_name_contradicts_are_refused(tmp_path: Path) -> None:
    torch.save({"model": BARE}, tmp_path / "mine-2-step.pt")
    assert convert(tmp_path / "mine-2-step.pt", config={**ARGUMENTS, "n_timesteps": 2}).architecture == "flow2gan"
    for config in ({**ARGUMENTS, "n_timesteps": 4}, "flow2gan_24khz_4step"):
        with pytest.raises(CheckpointError, match="n_timesteps=4, but the file's name says 2, and the steps belong to"):
            convert(tmp_path / "mine-2-step.pt", config=config)


@pytest.mark.parametrize(
    ("values", "name"), [(FILE_24K, "flow2gan_24khz_2step"), (FILE_44K, "flow2gan_44khz_128band_512x_4step")]
)
def test_the_mel_of_the_configuration_is_the_preset(values: dict[str, Any], name: str) -> None:
    assert ARCHITECTURE.layouts[0].spec(values) == MelSpec.preset(name)


def test_the_44_khz_mel_is_not_bigvgans(data_dir: Path) -> None:
    golden = load_file(data_dir / "golden" / "flow2gan_mel.safetensors")
    spec = MelSpec.preset("flow2gan_44khz_128band_512x_1step")
    got = melvoc.MelSpectrogram(spec)(golden["flow2gan_44khz_128band_512x.audio"])
    torch.testing.assert_close(got[0], golden["flow2gan_44khz_128band_512x.mel"], atol=2e-4, rtol=0)
    assert set(spec.diff(MelSpec.preset("bigvgan_v2_44khz_128band_512x"))) == {
        "mel_scale", "norm", "log_floor", "magnitude_eps", "center",
    }  # fmt: skip


CHILD = """
import json, sys
import torch
import melvoc, melvoc.nn.engines.cpu.engine, melvoc.storage.vocoder_file

def anonymous():
    lines = open("/proc/self/smaps_rollup").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:")) / 1024

mel, before = torch.zeros(1, int(sys.argv[2]), 94) - 4, anonymous()
voc = melvoc.load(sys.argv[1], device="cpu", mmap=True)
loaded = anonymous() - before
wave = voc.mel_to_waveform(mel, spec=voc.spec)
assert bool(wave.isfinite().all())
print(json.dumps([loaded, anonymous() - before]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="the system does not say what is copied")
@pytest.mark.parametrize("name", ["flow2gan_24khz_1step", "flow2gan_44khz_128band_512x_1step"])
def test_memory_of_the_published_size(name: str, tmp_path: Path) -> None:
    """Mapped weights are not copied by loading; a call prepares them, and needs its signals and compiled kernels."""
    pin = next(pin for pin in ARCHITECTURE.pins if pin.name == name)
    network = Flow2GAN(pin.config)
    assert sum(parameter.numel() for parameter in network.parameters()) == pin.parameters
    melvoc.save(NeuralVocoder(network, name=name, spec=pin.spec, architecture=ARCHITECTURE), tmp_path / "x.safetensors")
    size = (tmp_path / "x.safetensors").stat().st_size / 2**20
    command = [sys.executable, "-c", CHILD, str(tmp_path / "x.safetensors"), str(pin.spec.n_mels)]
    loaded, called = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert loaded < 0.1 * size
    assert called < 2.5 * size
