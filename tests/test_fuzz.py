"""Every reader, given what no writer makes: an error that says so, or a sane result, in bounded time and memory.

`benchmarks/fuzz.py` runs as many of the same inputs as one likes, each child with limits of time and memory; the cases
that a campaign found, and those that strangers reported, stand below by themselves.
"""

from __future__ import annotations

import dataclasses
import io
import json
import resource
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest
import soundfile
import torch
from mutations import CONTROL, READERS, apart, attempt, together
from networks import GOLDEN, VOCODERS, neural, random_mel, randomised
from safetensors.torch import load_file, save_file
from torch import Tensor

import melvoc
from melvoc.architectures.hifigan import HiFiGAN, HiFiGANConfig
from melvoc.architectures.vocos import Vocos, VocosConfig
from melvoc.cli.common import read_spec
from melvoc.errors import CheckpointError, DownloadError, MelvocError, OptionError, SpecError
from melvoc.griffinlim import GriffinLim
from melvoc.registry import architecture
from melvoc.spectrogram.file import HEADER_KEY as MEL_HEADER
from melvoc.spectrogram.file import KEY, read_mel, save_mel
from melvoc.storage import client
from melvoc.storage.configuration import read_config
from melvoc.storage.container import HEADER_KEY
from melvoc.storage.conversion import convert
from melvoc.storage.vocoder_file import describe, empty_network
from melvoc.storage.weights import fold, read_tensors

SEEDS = 50  # per reader
HIFIGAN, VOCOS = VOCODERS["bigvgan_v1_tiny"], VOCODERS["vocos_tiny"]
SECONDS, GIGABYTES = 5.0, 1.0


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    """Each test in a bounded time, and without new memory to speak of."""
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    yield
    assert time.process_time() - began < 10 * SECONDS
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e6 < GIGABYTES


@pytest.mark.parametrize("reader", READERS)
def test_a_campaign(reader: str, tmp_path: Path) -> None:
    first = list(READERS).index(reader)
    outcomes = []
    for turn in range(SEEDS):
        folder = tmp_path / str(turn)
        folder.mkdir()
        began = time.process_time()
        outcome = attempt(first + turn * len(READERS), folder)
        assert outcome.right, outcome
        assert time.process_time() - began < SECONDS, outcome
        outcomes.append(outcome)
    assert sum(outcome.formed for outcome in outcomes) >= SEEDS / 2 or reader == "checkpoint"
    assert {outcome.verdict for outcome in outcomes} == {"refused", "used"}


def test_the_same_seed_is_the_same_input(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    for seed in range(2 * len(READERS)):
        one, other = attempt(seed, tmp_path / "a"), attempt(seed, tmp_path / "b")
        assert (one.change, one.formed, one.verdict) == (other.change, other.formed, other.verdict)


# Numbers in a file bound the work


def stored(folder: Path, voc: Any, change: Callable[[dict[str, Any]], object]) -> Path:
    """A melvoc file with another header."""
    header, values = apart(melvoc.to_bytes(voc))
    inner = json.loads(header["__metadata__"][HEADER_KEY])
    change(inner)
    header["__metadata__"][HEADER_KEY] = json.dumps(inner)
    (folder / "voc.safetensors").write_bytes(together(header, values))
    return folder / "voc.safetensors"


@pytest.mark.parametrize(
    ("voc", "change", "message"),
    [
        (VOCOS, {"num_layers": 10**5}, "it asks for more than .* parameters, far more than the tensors in the file"),
        (VOCOS, {"num_layers": 10**9}, "num_layers=1000000000, but no network has a number above 1048576"),
        (VOCOS, {"n_fft": 10**9}, "n_fft=1000000000, but no network has a number above"),
        (VOCOS, {"n_fft": 2**20, "dim": 2**20}, "has shape"),
        (HIFIGAN, {"resblock_dilation_sizes": [[1] * 10**4] * 3}, "resblock_dilation_sizes has 10000 entries, but"),
        (HIFIGAN, {"resblock_dilation_sizes": [[1, 3, 10**30]] * 3}, "a whole number of 100 bits|no network has"),
        (HIFIGAN, {"resblock_dilation_sizes": [[1, 3, 2**19]] * 3}, "sees over 16384 samples; lower the dilation"),
        (HIFIGAN, {"upsample_rates": [1000] * 4, "upsample_kernel_sizes": [1000] * 4}, "values per mel frame, but at"),
        (HIFIGAN, {"upsample_rates": [2] * 65}, "upsample_rates has 65 entries, but at most 64"),
        (HIFIGAN, {"resblock": ["1"]}, r"resblock=\['1'\], but it is text"),
        (HIFIGAN, {"n_mels": 10**4299}, "n_mels=a whole number of 14281 bits, but no network"),
    ],
)
def test_configurations_are_compared_with_the_file_before_anything_is_built(
    voc: Any, change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = stored(tmp_path, voc, lambda header: header["config"].update(change))
    began = time.process_time()
    with pytest.raises(
        CheckpointError, match=rf"voc\.safetensors: its configuration is not \w+'s: .*{message}|{message}"
    ):
        melvoc.load(path, device="cpu")
    assert time.process_time() - began < SECONDS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": ["a"]}, r"its name is \['a'\], but it is a str"),
        ({"architecture": ["a"]}, r"its architecture is \['a'\], but it is a str"),
        ({"licence": {"a": 1}}, "its licence is {'a': 1}, but it is a str"),
        ({"format": [1]}, r"melvoc format \[1\], but this melvoc reads formats 1 and 2"),
        ({"format": 2, "post": [{}] * 99}, r"post=\[.*\], but it is a list of at most 64 steps"),
        ({"architecture": CONTROL}, r"architecture '\\x1b\[31m"),
    ],
)
def test_headers_with_parts_of_another_kind(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        melvoc.load(stored(tmp_path, VOCOS, lambda header: header.update(change)), device="cpu")


@pytest.mark.parametrize("text", ["[" * 10**5 + "]" * 10**5, '{"format":' * 10**4 + "1" + "}" * 10**4, " " * 10**6])
def test_headers_that_are_deep_or_long(text: str, tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "a.safetensors", metadata={HEADER_KEY: text, MEL_HEADER: text})
    with pytest.raises(CheckpointError, match=r"a\.safetensors: the melvoc header is damaged"):
        melvoc.load(tmp_path / "a.safetensors")
    save_file({KEY: torch.ones(1)}, tmp_path / "a.safetensors", metadata={HEADER_KEY: text, MEL_HEADER: text})
    with pytest.raises(MelvocError, match=r"a\.safetensors: not a readable mel"):
        read_mel(tmp_path / "a.safetensors")
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(MelvocError, match=r"a\.json: not"):
        read_spec(str(tmp_path / "a.json"))
    with pytest.raises(CheckpointError, match=r"a\.json: not valid"):
        read_config(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_iter": 10**12}, "n_iter=1000000000000, but it is a whole number from 1 to"),
        ({"n_iter": 10**30}, "n_iter=1000000000000000000000000000000, but it is a whole number from 1 to"),
        ({"momentum": [0.9] * 99}, r"momentum=\[0.9, 0.9, .*\.\.\.\], but it is a number"),
    ],
)
def test_griffin_lims_rounds(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = stored(tmp_path, GriffinLim(), lambda header: header["config"].update(options))
    with pytest.raises(CheckpointError, match=rf"its options are not Griffin-Lim's: {message}"):
        melvoc.load(path)


def test_griffin_lims_rounds_follow_from_the_frames() -> None:
    wide = melvoc.MelSpec(sample_rate=44100, n_fft=2**18, hop_length=256, n_mels=20)
    with pytest.raises(OptionError, match=r"n_iter=32, but it is a whole number from 1 to 25 \(with this spec\)"):
        GriffinLim(spec=wide)
    assert GriffinLim(n_iter=3000).n_iter == 3000


def worst(kind: str) -> Any:
    """A vocoder at the bounds."""
    if kind == "griffinlim":
        spec = melvoc.MelSpec(sample_rate=44100, n_fft=2**18, hop_length=256, n_mels=127)
        return GriffinLim(spec=spec, n_iter=25)
    if kind == "vocos":
        spec = melvoc.MelSpec(sample_rate=44100, n_fft=1024, hop_length=1, n_mels=8)
        vocos = VocosConfig(n_mels=8, dim=8, intermediate_dim=8, num_layers=1, n_fft=2**20, hop_length=1)
        return neural(randomised(Vocos(vocos)), name=kind, spec=spec)
    spec = melvoc.MelSpec(sample_rate=44100, n_fft=2**18, hop_length=2**18, n_mels=8)
    hifigan = HiFiGANConfig(
        n_mels=8, upsample_rates=(512, 512), upsample_kernel_sizes=(512, 512), upsample_initial_channel=64,
        resblock_kernel_sizes=(3,), resblock_dilation_sizes=((1, 8192),),
    )  # fmt: skip
    return neural(randomised(HiFiGAN(hifigan)), name=kind, spec=spec)


@pytest.mark.parametrize("kind", ["griffinlim", "hifigan", "vocos"])
def test_the_worst_that_the_bounds_allow(kind: str) -> None:
    began = time.process_time()
    voc = melvoc.from_bytes(melvoc.to_bytes(worst(kind)), device="cpu")
    wave = voc.mel_to_waveform(torch.full((1, voc.spec.n_mels, 4), -4.0), spec=voc.spec)
    assert wave.shape[-1] == 4 * voc.spec.hop_length
    assert time.process_time() - began < 2 * SECONDS


def test_a_file_with_two_specs(tmp_path: Path) -> None:
    path = stored(tmp_path, GriffinLim(), lambda header: header["spec"].update(f_max=8000.0))
    with pytest.raises(CheckpointError, match=r"voc\.safetensors: has two different specs \(f_max\)"):
        melvoc.load(path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n_fft": 2**18 + 2}, "n_fft=262146, but it is a whole number from 2 to 262144"),
        ({"n_fft": 2048, "hop_length": 1}, "hop_length=1 with n_fft=2048, but no sample is in more than 1024 frames"),
        ({"n_fft": 2**18, "n_mels": 200}, "200 bands by 131073 bins of n_fft=262144 are more weights than 16777216"),
        ({"sample_rate": 10**5000}, "sample_rate=a whole number of 16610 bits, but it is a whole number from 1"),
        ({"log": "x" * 9999}, r"log='x{90,100}\.\.\.x+', but it is one of"),
        ({"power": 10**400}, "power=a whole number of 1329 bits, but it is a finite number"),
    ],
)
def test_specs_whose_filter_bank_would_fill_the_memory(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        melvoc.MelSpec.from_dict({"sample_rate": 44100, "n_fft": 1024, "hop_length": 256, "n_mels": 80} | fields)


# Mels and arrays


def test_a_mel_whose_sound_is_said_to_be_long(tmp_path: Path) -> None:
    spec = melvoc.MelSpec.preset("hifigan_22khz_80band_256x")
    for samples in (0, 187 * 256, 187 * 256 + 1024):
        save_mel(tmp_path / "a.safetensors", torch.zeros(80, 187), spec, samples=samples)
        assert read_mel(tmp_path / "a.safetensors").samples == samples
    header = json.dumps({"version": 1, "spec": spec.to_dict(), "samples": 10**9})  # no melvoc writes this
    save_file({KEY: torch.zeros(80, 187)}, tmp_path / "a.safetensors", metadata={MEL_HEADER: header})
    message = (
        r"a\.safetensors: not a readable mel \(its header has samples=1000000000, but its \[80, 187\] frames are of at"
    )
    with pytest.raises(MelvocError, match=message):
        read_mel(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (80, 9), }"[:-9], "(" * 5000, "{" + "'a': " * 9, "\0", "3",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (10**12, 80), }", "__import__('os').system('true')",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 80), }", "[" * 200 + "]" * 200,
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 80), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (9000000000000000000, 9000000000000000000), }",
        "{'descr': '<f999999999999', 'fortran_order': False, 'shape': (9, 80), }",
        "{'descr': [], 'fortran_order': False, 'shape': (9, 80), }", "{'descr': '<f4', 'descr': 3}",
        "{1: 2, 'a': 3, None: 4}", "'a'",
    ],
    ids=lambda header: header[:20],
)  # fmt: skip
def test_arrays_whose_header_is_damaged(header: str, tmp_path: Path) -> None:
    text = header.encode() + b"\n"
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x02\0" + struct.pack("<I", len(text)) + text + b"\0" * 2880)
    with pytest.raises(MelvocError, match=r"a\.npy: not a readable mel"):
        read_mel(tmp_path / "a.npy")


def test_an_archive_of_arrays_with_the_wrong_name(tmp_path: Path) -> None:
    numpy.savez(tmp_path / "a.npz", a=numpy.ones((80, 9)))
    (tmp_path / "a.npz").rename(tmp_path / "a.npy")
    with pytest.raises(MelvocError, match=r"a\.npy: not a readable mel \(its header is damaged: .*magic string"):
        read_mel(tmp_path / "a.npy")


# Sound


@pytest.mark.parametrize("rate", [1, 100, 999, 384_001, 10**6, 2**31 - 1])
def test_sound_at_a_rate_that_none_has(rate: int, tmp_path: Path) -> None:
    stream = io.BytesIO()
    soundfile.write(stream, numpy.zeros(999), 16000, format="WAV")
    data = bytearray(stream.getvalue())
    data[24:28] = rate.to_bytes(4, "little")
    (tmp_path / "a.wav").write_bytes(data)
    with pytest.raises(MelvocError, match=rf"a\.wav: a sample rate of {rate} Hz, but sound has 1000 to 384000"):
        melvoc.audio.read(tmp_path / "a.wav")


def test_rates_without_a_common_divisor_take_bounded_memory() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    melvoc.resample(torch.zeros(100), 191_999, 44_100)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e6 < 0.5


# Foreign checkpoints and configurations


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)


@pytest.mark.parametrize(
    "text",
    [
        BOMB,
        "m0: &m0 {x: 1}\n" + "".join(f"m{i}: &m{i} {{<<: [{', '.join([f'*m{i - 1}'] * 9)}]}}\n" for i in range(1, 12)),
        "a: &a [*a]",
        "a: &a\n  b: *a",
        "[" * 5000,
    ],
)
def test_yaml_that_grows(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(text)
    began = time.process_time()
    with pytest.raises(CheckpointError, match=r"config\.yaml: not valid \.yaml \(") as caught:
        read_config(tmp_path / "config.yaml")
    assert time.process_time() - began < SECONDS
    assert len(str(caught.value)) < 2000


def test_yaml_with_a_number_that_python_does_not_write_out(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(f"backbone: {{dim: 0x{'f' * 10**4}}}")
    with pytest.raises(CheckpointError, match=r"config\.yaml: not valid \.yaml \(it has a number of 10002 digits\)"):
        read_config(tmp_path / "config.yaml")


def test_yaml_with_a_few_aliases(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("a: &a {b: [1, 2]}\nc: *a\nd: {<<: *a, e: 3}")
    assert read_config(tmp_path / "config.yaml") == {"a": {"b": [1, 2]}, "c": {"b": [1, 2]}, "d": {"b": [1, 2], "e": 3}}


@pytest.mark.parametrize(
    "value",
    ["x" * 10**5, [[1] * 999] * 99, 0xF ** (10**4), CONTROL * 999, {"a" * 9999: {}}],
    ids=["text", "lists", "number", "control", "key"],
)
def test_a_configurations_values_are_quoted_in_short(value: Any, tmp_path: Path) -> None:
    config = json.loads((GOLDEN / "bigvgan_v1_tiny.json").read_text())
    tensors = load_file(GOLDEN / "bigvgan_v1_tiny.safetensors")
    save_file(tensors, tmp_path / "g.safetensors")
    for key in ("upsample_rates", "num_mels", "resblock", "activation", "hop_size", "use_tanh_at_final"):
        with pytest.raises(CheckpointError, match=r"g\.safetensors") as caught:
            convert(tmp_path / "g.safetensors", config=config | {key: value})
        assert len(str(caught.value).encode()) < 2000
        assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("part", ["backbone", "head", "feature_extractor"])
@pytest.mark.parametrize("value", [None, 3, "text", [], ["a"], {"class_path": ["a"]}, {"init_args": 3}])
def test_vocos_sections_that_are_no_mappings(part: str, value: object, tmp_path: Path) -> None:
    config = json.loads((GOLDEN / "vocos_tiny.json").read_text())
    config |= {"feature_extractor": {"class_path": "vocos.feature_extractors.MelSpectrogramFeatures"}} | {part: value}
    with pytest.raises(CheckpointError, match=f"the configuration of .*{part}|has no {part}"):
        convert(tmp_path / "none.bin", config=config)


@pytest.mark.parametrize("shape", [(), (1,), (4, 1), (4, 1, 2), (5, 1, 1), (1, 1, 4), (4, 1, 1, 1)])
def test_halves_of_weight_norm_of_odd_shape(shape: tuple[int, ...]) -> None:
    halves = {"a.weight_g": torch.ones(shape), "a.weight_v": torch.ones(4, 3, 2)}
    with pytest.raises(CheckpointError, match=r"x: 'a\.weight_g' has shape .*, but its direction \[4, 3, 2\]"):
        fold(halves, "x")
    with pytest.raises(CheckpointError, match=r"x: 'a\.weight_g' has shape \[\], but its direction \[\]"):
        fold({"a.weight_g": torch.tensor(1.0), "a.weight_v": torch.tensor(1.0)}, "x")
    with pytest.raises(CheckpointError, match=r"x: 'a\.weight_g' has shape \[4\], but its direction \[4\]"):
        fold({"a.weight_g": torch.ones(4), "a.weight_v": torch.ones(4)}, "x")


@pytest.mark.parametrize("key", [3, (1, ("a",) * 999), b"a"])
def test_tensors_under_what_is_no_name(key: Any, tmp_path: Path) -> None:
    torch.save({key: torch.ones(1)}, tmp_path / "g.pt")
    config = json.loads((GOLDEN / "bigvgan_v1_tiny.json").read_text())
    with pytest.raises(CheckpointError, match=r"g\.pt: .* is a Tensor, but a generator is a dict of tensors"):
        convert(tmp_path / "g.pt", config=config)


def test_a_small_file_of_a_large_tensor(tmp_path: Path) -> None:
    tensors: dict[str, Tensor] = {
        "a.weight_g": torch.ones(1).expand(10**9, 1),
        "a.weight_v": torch.ones(1).expand(10**9, 9),
    }
    torch.save(tensors, tmp_path / "g.pt")
    assert (tmp_path / "g.pt").stat().st_size < 2000
    read_tensors(tmp_path / "g.pt")
    config = json.loads((GOLDEN / "bigvgan_v1_tiny.json").read_text())
    with pytest.raises(CheckpointError, match=r"g\.pt: 'a\.weight_g' has shape \[1000000000, 1\], but only 4 bytes"):
        convert(tmp_path / "g.pt", config=config)


@pytest.mark.parametrize("key", ["." * 10**6, "a." * 256, "x" * 10**6])
def test_names_that_are_long(key: str, tmp_path: Path) -> None:
    inner = {f"{number}": torch.ones(1) for number in range(2000)}
    config = json.loads((GOLDEN / "bigvgan_v1_tiny.json").read_text())
    for content in ({key: torch.ones(1)}, {key: inner}, {"a": {"b": {key: inner}}}):
        torch.save(content, tmp_path / "g.pt")
        with pytest.raises(CheckpointError, match=r"g\.pt: .* stands for \d+ characters, but no tensor's name|lacks"):
            convert(tmp_path / "g.pt", config=config)


def test_containers_that_hold_each_other(tmp_path: Path) -> None:
    boxes: list[dict[str, Any]] = [{} for _ in range(40)]
    for box in boxes:
        box |= {str(number): other for number, other in enumerate(boxes)}
    torch.save(boxes[0], tmp_path / "g.pt")
    with pytest.raises(CheckpointError, match=r"g\.pt: '0' is a dict, but a generator is a dict of tensors by name"):
        convert(tmp_path / "g.pt", config=json.loads((GOLDEN / "bigvgan_v1_tiny.json").read_text()))


def test_a_configuration_of_long_keys_and_many_sections(tmp_path: Path) -> None:
    tree: dict[str, Any] = {"k" * 10**5: {f"a{number}": {"b": {}} for number in range(5000)}}
    (tmp_path / "config.json").write_text(json.dumps(tree))
    with pytest.raises(CheckpointError, match="is none of .*; give the configuration that was published"):
        convert(tmp_path / "g.pt", config=tmp_path / "config.json")


# Weights that are finite and make no sound


def test_weights_of_3e38_are_refused(tmp_path: Path) -> None:
    one = describe(VOCOS)
    large = {key: torch.full_like(tensor, 3e38) for key, tensor in one.tensors.items()}
    with pytest.raises(
        CheckpointError, match=r"contains values up to 3e\+38, but weights are finite and at most 1048576"
    ):
        empty_network(dataclasses.replace(one, tensors=large), architecture(one.architecture))


def test_a_vocoder_that_makes_nan_says_so(tmp_path: Path) -> None:
    one = describe(VOCOS)
    large = {key: tensor * 1e5 for key, tensor in one.tensors.items()}
    melvoc.save(VOCOS, tmp_path / "voc.safetensors")
    save_file(large, tmp_path / "voc.safetensors", metadata={HEADER_KEY: one.header()})
    for engine in ("auto", "torch"):
        voc = melvoc.load(tmp_path / "voc.safetensors", device="cpu", engine=engine)
        with torch.no_grad():
            for parameter in voc.parameters():
                parameter.fill_(3e38)
        message = f"{VOCOS.name} made NaN or Inf of a finite mel: its weights are damaged"
        with pytest.raises(MelvocError, match=message):
            voc.mel_to_waveform(random_mel(voc, 5))
        with pytest.raises(MelvocError, match=message):
            voc.stream().push(random_mel(voc, 50))


# The Hub's answers


@pytest.mark.parametrize("commit", ["../../../etc", "x" * 300, "0" * 39, "0" * 40 + "\n", None, CONTROL])
def test_a_commit_that_is_none_is_no_part_of_a_path(
    commit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_asked", lambda repo, options, question: commit)
    with pytest.raises(
        DownloadError, match="hf://a/b: the server answers .* as the commit of main, but a commit has 40"
    ):
        melvoc.load("hf://a/b", cache_dir=tmp_path)
    assert not list(tmp_path.rglob("*.commit"))


@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/x.safetensors", "a/../../x.safetensors"])
def test_files_outside_of_their_repository(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(["0" * 40, [name]])
    monkeypatch.setattr(client, "_asked", lambda repo, options, question: next(answers))
    with pytest.raises(DownloadError, match="hf://a/b names files outside itself; do not use it"):
        melvoc.load("hf://a/b", cache_dir=tmp_path)
