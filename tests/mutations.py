"""Seeded inputs as no writer makes them, for every reader: `tests/test_fuzz.py` and `benchmarks/fuzz.py` share them.

`attempt(seed, folder)` makes one input, gives it to its reader, uses what comes out, and says what happened. Two thirds
of the inputs are well-formed but for one field: a file is taken apart, one part is changed, and it is put together
again with lengths and offsets that fit. The others have bytes changed, cut or repeated anywhere.
"""

from __future__ import annotations

import copy
import functools
import io
import json
import math
import random
import struct
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy
import soundfile
import torch
import yaml
from networks import GOLDEN, VOCODERS, neural, randomised
from safetensors.torch import load_file

import melvoc
from melvoc import MelvocError
from melvoc.architectures.hifigan import HiFiGAN, HiFiGANConfig
from melvoc.audio.resampling import resample
from melvoc.cli.common import read_spec
from melvoc.griffinlim import GriffinLim
from melvoc.spectrogram.file import HEADER_KEY as MEL_HEADER
from melvoc.spectrogram.file import KEY, read_mel
from melvoc.storage.container import HEADER_KEY, PACKED_HEADER
from melvoc.storage.conversion import convert
from melvoc.vocoder import Vocoder

FRAMES = 4
CONTROL = "\x1b[31m\x07\x00\u202e"
COMMIT = "0123456789abcdef" * 2 + "01234567"
NUMBERS = (0, 1, 2, 3, 7, 64, 255, 1000, 4097, 2**16, 10**5, 10**6, 2**24, 2**31 - 1, 2**31, 2**32, 10**9, 2**63 - 1)
ODD: tuple[Any, ...] = (
    None, True, False, -1, 0.0, -0.0, 0.5, 1.0, -1e9, 1e308, -2**63, 2**64, 10**30, 10**4000, math.nan, math.inf,
    -math.inf, "", "a", "1", CONTROL, CONTROL * 500, "é" * 3000, "x" * 10**5, [], {}, [None], ["a"], [[]], [1], [1, -1],
    [2.5], [10**6] * 3, [1] * 10**5, [[1] * 1000] * 64, [[1]] * 64, {"a": 1}, {"": None}, {"a" * 9999: "b"}, [{}] * 99,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What happened to one input.

    Attributes:
        reader: what was given the input.
        change: what was changed.
        formed: whether it is well-formed but for one field.
        verdict: "refused", "used", or what went wrong.
        message: of the error, if there was one.
    """

    reader: str
    change: str
    formed: bool
    verdict: str
    message: str = ""

    @property
    def right(self) -> bool:
        """Whether a reader may do so."""
        return self.verdict in ("refused", "used")


class InsaneError(Exception):
    """A result that cannot be."""


# The inputs, before anything is changed


@functools.cache
def vocoders() -> dict[str, Vocoder]:
    spec = melvoc.MelSpec(sample_rate=16000, n_fft=64, hop_length=16, n_mels=8)
    config = HiFiGANConfig(
        n_mels=8, upsample_rates=(4, 4), upsample_kernel_sizes=(8, 8), upsample_initial_channel=8,
        resblock_kernel_sizes=(3,), resblock_dilation_sizes=((1, 3),),
    )  # fmt: skip
    hifigan = neural(randomised(HiFiGAN(config)), name="h", spec=spec)
    return {
        "hifigan": hifigan,
        "griffinlim": GriffinLim(spec=spec, n_iter=2),
        "bigvgan": VOCODERS["bigvgan_v1_tiny"],
    } | {"vocos": VOCODERS["vocos_tiny"]}


@functools.cache
def published(name: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    tensors = load_file(GOLDEN / f"{name}.safetensors")
    for extra in ("mel", "wav", "input", "audio", "audio_mel"):
        tensors.pop(extra, None)
    return tensors, json.loads((GOLDEN / f"{name}.json").read_text())


@functools.cache
def sound(kind: str, subtype: str) -> bytes:
    wave = numpy.sin(numpy.arange(6000)[:, None] * [0.05, 0.07]) * 0.5
    stream = io.BytesIO()
    soundfile.write(stream, wave, 16000, format=kind, subtype=subtype)
    return stream.getvalue()


# Safetensors, taken apart and put together


def apart(data: bytes) -> tuple[dict[str, Any], bytes]:
    """The header and the values."""
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def together(header: Any, values: bytes) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + values


# Changes


def altered(value: Any, rng: random.Random) -> Any:
    """Another value in its place."""
    if isinstance(value, int) and not isinstance(value, bool) and rng.random() < 0.7:
        return rng.choice([*NUMBERS, value + 1, value - 1, value * 2, -value, value * 1000, value // 2])
    if isinstance(value, list) and value and rng.random() < 0.5:
        return rng.choice([value[:-1], value + value, value * 3000, [value], value[::-1], value[:1] * 64])
    if isinstance(value, float) and rng.random() < 0.5:
        return value * rng.choice([0.0, 0.5, 0.999, 1.001, 2.0, 1e-30, 1e30, -1.0])
    return rng.choice(ODD)


def places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value in a tree."""
    parts = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [place for key, part in parts for place in [(*path, key), *places(part, (*path, key))]]


def tree_changed(tree: Any, rng: random.Random) -> tuple[Any, str]:
    """The same tree but for one value or key."""
    tree = copy.deepcopy(tree)
    *path, key = rng.choice(places(tree))
    parent = functools.reduce(lambda part, name: part[name], path, tree)
    how = rng.choices(["value", "delete", "rename", "add"], [8, 1, 1, 1])[0]
    if how == "delete":
        del parent[key]
    elif how == "rename" and isinstance(parent, dict):
        parent[rng.choice([f"{key}_", CONTROL, "x" * 5000, ""])] = parent.pop(key)
    elif how == "add" and isinstance(parent, dict):
        parent[rng.choice(["extra", "mel_scale", "log", "post"])] = rng.choice(ODD)
    else:
        parent[key] = altered(parent[key], rng)
    return tree, f"{how} of {'.'.join(map(str, [*path, key]))}"


def header_changed(header: dict[str, Any], rng: random.Random) -> tuple[Any, str]:
    """The same header but for one field. Griffin-Lim's says its spec twice: half of the time both are changed."""
    header, what = tree_changed(header, rng)
    config = header.get("config")
    if isinstance(config, dict) and "spec" in config and rng.random() < 0.5:
        header["spec"] = config["spec"]
    return header, what


def text_changed(text: str, rng: random.Random) -> str:
    """JSON or YAML that was deep, long or damaged before anybody looked into it."""
    deep = rng.choice([10, 500, 10**4, 10**5])
    bomb = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}' if i else 'x'] * 9)}]\n" for i in range(9))
    merged = "m0: &m0 {x: 1}\n" + "".join(
        f"m{i}: &m{i} {{<<: [{', '.join([f'*m{i - 1}'] * 9)}]}}\n" for i in range(1, 9)
    )
    return rng.choice(
        [
            "[" * deep + "]" * deep, '{"a":' * deep + "1" + "}" * deep, text[: rng.randrange(len(text))], "null", "",
            text.replace(":", "", 1), text + text, bomb + text, merged + text, f"a: &a [*a]\n{text}", "\ufeff" + text,
            "0x" + "f" * 10**4, "!!python/object/apply:os.system [true]", text + " " * 10**6, "- a\n" * 3000,
        ]
    )  # fmt: skip


def tensors_changed(tensors: Mapping[str, torch.Tensor], rng: random.Random, plain: bool) -> tuple[dict[Any, Any], str]:
    """The same tensors but for one."""
    tensors = dict(tensors)
    weights = [name for name in tensors if tensors[name].is_floating_point()]
    key = rng.choice(weights if weights and rng.random() < 0.9 else list(tensors))
    value = tensors[key].clone()
    flat = value.reshape(-1)
    changes: dict[str, Callable[[], Any]] = {
        "float16": lambda: value.half(), "bfloat16": lambda: value.bfloat16(), "float64": lambda: value.double(),
        "float8": lambda: value.to(torch.float8_e4m3fn), "integers": lambda: value.int(), "bool": lambda: value > 0,
        "complex": lambda: value.to(torch.complex64), "NaN": lambda: flat.index_fill(0, torch.tensor([0]), math.nan),
        "NaN inside": lambda: value * torch.where(torch.arange(flat.numel()).view_as(value) == 1, math.nan, 1.0),
        "3e38": lambda: torch.full_like(value, 3e38), "1e6": lambda: value * 1e6, "zero": lambda: value * 0,
        "denormal": lambda: value * 1e-42,
        "-Inf": lambda: value - math.inf, "500": lambda: torch.full_like(value, 500.0),
        "longer": lambda: torch.cat([value, value]), "empty": lambda: flat[:0], "flat": lambda: flat,
        "scalar": lambda: torch.tensor(1.0), "transposed": lambda: value.transpose(0, -1).contiguous(),
        "one more axis": lambda: value[None], "negative": lambda: -value,
    }  # fmt: skip
    if not plain:
        changes |= {
            "sparse": lambda: value.to_sparse(), "meta": lambda: value.to("meta"), "text": lambda: "text",
            "quantised": lambda: torch.quantize_per_tensor(value, 0.1, 0, torch.qint8), "None": lambda: None,
            "expanded": lambda: torch.zeros(1).expand(10**6, *value.shape[1:]), "number": lambda: 3.5,
            "strided": lambda: value.transpose(0, -1), "parameter": lambda: torch.nn.Parameter(value),
        }  # fmt: skip
    how = rng.choice([*changes, "delete", "rename", "add", "swap"])
    if how in changes:
        tensors[key] = changes[how]()
    elif how == "delete":
        del tensors[key]
    elif how == "rename":
        names = [f"{key}_g", CONTROL, "x" * 9999, key.replace("_g", "_v"), *([] if plain else [3, (1, 2)])]
        tensors[rng.choice(names)] = tensors.pop(key)
    elif how == "add":
        tensors |= {f"extra{'é' * 300}{i}": value for i in range(rng.choice([1, 50]))}
    else:
        other = rng.choice(list(tensors))
        tensors[key], tensors[other] = tensors[other], tensors[key]
    return tensors, f"{how} of {key}"


def bytes_changed(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Bytes changed anywhere, most of them near the beginning, where headers are."""
    raw = bytearray(data)
    at = int(len(raw) * rng.random() ** 4)
    how = rng.choice(["bit", "byte", "word", "cut", "insert", "delete", "zeros", "ones", "noise"])
    if how == "bit" and raw:
        raw[at] ^= 1 << rng.randrange(8)
    elif how == "byte" and raw:
        raw[at] = rng.choice([0, 1, 127, 128, 255, rng.randrange(256)])
    elif how == "word":
        raw[at : at + 4] = struct.pack("<I", rng.choice([number for number in NUMBERS if number < 2**32]))
    elif how == "cut":
        del raw[at:]
    elif how == "insert":
        raw[at:at] = rng.randbytes(rng.choice([1, 4, 100, 10**5]))
    elif how == "delete":
        del raw[at : at + rng.choice([1, 4, 100])]
    elif how in ("zeros", "ones"):
        raw[at : at + 16] = (b"\0" if how == "zeros" else b"\xff") * 16
    else:
        raw[at:] = rng.randbytes(len(raw) - at)
    return bytes(raw), f"{how} at {at}"


def stored_changed(data: bytes, rng: random.Random, key: str) -> tuple[bytes, str]:
    """A safetensors file with one field of its own header, or of the JSON inside it, changed, or one tensor."""
    header, values = apart(data)
    if rng.random() < 0.6:
        inner, what = header_changed(json.loads(header["__metadata__"][key]), rng)
        text = json.dumps(inner) if rng.random() < 0.9 else text_changed(json.dumps(inner), rng)
        header["__metadata__"][key] = text
        return together(header, values), what
    if rng.random() < 0.5 and len(header) > 1:
        from safetensors.torch import load, save

        tensors, what = tensors_changed(load(data), rng, plain=True)
        return save(
            {name: tensor.contiguous().clone() for name, tensor in tensors.items()}, header["__metadata__"]
        ), what
    header, what = tree_changed(header, rng)
    return together(header, values), what


# Readers


def used(vocoder: Vocoder, seed: int) -> None:
    """What a vocoder that loaded makes of a mel is sound."""
    mel = torch.full((1, vocoder.spec.n_mels, FRAMES), -4.0)
    wave = vocoder.mel_to_waveform(mel, spec=vocoder.spec)
    if wave.shape[-1] != FRAMES * vocoder.samples_per_frame or not bool((wave.abs() <= 1).all()):
        raise InsaneError(f"sound of shape {list(wave.shape)} up to {float(wave.abs().max())}")


def engine(seed: int) -> str:
    return "auto" if seed // len(READERS) % 8 == 0 else "torch"


def melvoc_file(rng: random.Random, folder: Path, seed: int) -> tuple[bool, str, Callable[[], object]]:
    data = melvoc.to_bytes(rng.choice(list(vocoders().values())))
    formed = rng.random() < 0.66
    data, what = stored_changed(data, rng, HEADER_KEY) if formed else bytes_changed(data, rng)
    path = folder / "voc.safetensors"
    if rng.random() < 0.25:
        return formed, what, lambda: used(melvoc.from_bytes(data, device="cpu", engine=engine(seed)), seed)
    path.write_bytes(data)
    if rng.random() < 0.25:
        return formed, what, lambda: melvoc.info(path)
    return formed, what, lambda: used(melvoc.load(path, device="cpu", engine=engine(seed)), seed)


def packed(rng: random.Random, folder: Path, seed: int) -> tuple[bool, str, Callable[[], object]]:
    prefix = rng.choice(["", "", "vocoder."])
    state: dict[Any, Any] = melvoc.pack(rng.choice(list(vocoders().values())))
    if rng.random() < 0.5 or len(state) < 2:
        inner, what = header_changed(json.loads(bytes(state[PACKED_HEADER].tolist())), rng)
        state[PACKED_HEADER] = torch.tensor(list(json.dumps(inner).encode()), dtype=torch.uint8)
    else:
        state, what = tensors_changed(state, rng, plain=False)
    if prefix:
        state = {f"{prefix}{key}" if isinstance(key, str) else key: value for key, value in state.items()}
        state["app.weight"] = rng.choice([torch.ones(2), "text", None])
    return True, what, lambda: used(melvoc.unpack(state, prefix, device="cpu", engine=engine(seed)), seed)


def foreign(rng: random.Random, folder: Path, seed: int) -> tuple[bool, str, Callable[[], object]]:
    """A published checkpoint with its configuration, as two files or as their folder; one of the two is changed."""
    tensors: dict[Any, Any]
    tensors, config = published(
        rng.choice(["bigvgan_v1_tiny", "vocos_tiny", "bigvgan_resblock2_snake_tiny", "speecht5_tiny"])
    )
    path = folder / rng.choice(["generator.pt", "generator.pt", "generator.safetensors", "generator"])
    plain, formed, what = path.suffix == ".safetensors" or (path.suffix == "" and rng.random() < 0.5), True, ""
    if rng.random() < 0.3:
        config = {"model": {"class_path": "a.b", "init_args": config}, "trainer": {"epochs": 3}}
    content = json.dumps(config)
    kind = rng.choice(["tensors", "config", "text", "bytes"])
    if kind == "tensors":
        tensors, what = tensors_changed(tensors, rng, plain)
    elif kind == "config":
        config, what = tree_changed(config, rng)
        content = json.dumps(config)
    elif kind == "text":
        formed, what, content = False, "text of the configuration", text_changed(content, rng)
    stream = io.BytesIO()
    if plain:
        from safetensors.torch import save

        stream.write(save({name: tensor.contiguous().clone() for name, tensor in tensors.items()}))
    else:
        prefix = rng.choice(["", "module.", "a.b.c.", CONTROL, "ema."])
        tensors = {f"{prefix}{key}" if prefix else key: tensor for key, tensor in tensors.items()}
        twice: dict[Any, Any] = {"a": tensors, "ema": dict(tensors), "n": 3, 4: [tensors]}
        twice["again"] = twice
        whole = rng.choice([tensors, {"generator": tensors}, {"model": {"net": tensors}}, [tensors], twice])
        torch.save(whole, stream, _use_new_zipfile_serialization=rng.random() < 0.7)
    data = stream.getvalue()
    if kind == "bytes":
        formed = False
        data, what = bytes_changed(data, rng)
    path.write_bytes(data)
    described = folder / rng.choice(["config.json", "config.yaml"])
    if described.suffix == ".yaml" and kind == "config":
        content = yaml.safe_dump(config)
    described.write_text(content, encoding="utf-8", errors="replace")
    if rng.random() < 0.2:
        (folder / rng.choice(["other.pt", "g_0", "README.md", "config.yml", ".hidden"])).write_bytes(rng.randbytes(20))
    given = rng.choice([{"path": path, "config": described}, {"path": path}, {"path": folder}])
    return formed, what, lambda: convert(**given)


def mel_file(rng: random.Random, folder: Path, seed: int) -> tuple[bool, str, Callable[[], object]]:
    from safetensors.torch import save

    spec = vocoders()["griffinlim"].spec
    header = {"version": 1, "spec": spec.to_dict(), "samples": 160}
    data = save({KEY: torch.full((8, 10), -4.0)}, {MEL_HEADER: json.dumps(header)})
    formed = rng.random() < 0.66
    data, what = stored_changed(data, rng, MEL_HEADER) if formed else bytes_changed(data, rng)
    path = folder / "a.safetensors"
    path.write_bytes(data)
    return formed, what, lambda: mel_used(path)


def mel_used(path: Path) -> None:
    saved = read_mel(path)
    spec = saved.spec or vocoders()["griffinlim"].spec
    wave = GriffinLim(spec=spec, n_iter=1).mel_to_waveform(saved.mel, spec=saved.spec)
    if saved.samples is not None and saved.samples > wave.shape[-1] + spec.n_fft:
        raise InsaneError(f"samples={saved.samples}, but the mel makes {wave.shape[-1]}")


def array(rng: random.Random, folder: Path, seed: int) -> tuple[bool, str, Callable[[], object]]:
    """A bare array, whose header is Python's text of a dict."""
    stream = io.BytesIO()
    numpy.save(stream, numpy.full((8, 10), -4.0, dtype="<f4"))
    data, formed = stream.getvalue(), rng.random() < 0.66
    if formed:
        fields: dict[str, Any] = {"descr": "<f4", "fortran_order": False, "shape": (8, 10)}
        field = rng.choice(list(fields))
        odd = {
            "descr": [
                "<f8", ">f4", "<f2", "<f16", "O", "S0", "V0", "<U9", "<c8", "|u1", [("a", "<f4")], "x", None, "<M8[s]",
            ],
            "shape": [
                (), (80,), (-1, 80), (0, 80), (2**40, 80), (2**62, 4), (8.0, 10), "a", (1,) * 99,
                (8, 10, 1, 1), (1, 8, 10),
            ],
            "fortran_order": [True, 1, None, "yes"],
        }  # fmt: skip
        fields[field] = rng.choice([*odd[field], *ODD])
        text = rng.choice(
            [repr(fields)] * 4 + ["(" * 5000, "{" + "'a':" * 999, repr(fields)[:-2], "\0", "__import__('os')"]
        )
        raw = text.encode(errors="replace")[:60000] + b"\n"
        data, what = b"\x93NUMPY\x02\x00" + struct.pack("<I", len(raw)) + raw + data[-320:], field
    else:
        data, what = bytes_changed(data, rng)
    path = folder / "a.npy"
    path.write_bytes(data)
    return formed, what, lambda: mel_used(path)


def sound_file(rng: random.Random, folder: Path, seed: int) -> tuple[bool, str, Callable[[], object]]:
    kind, subtype = rng.choice(
        [("WAV", "PCM_16"), ("WAV", "FLOAT"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("AIFF", "PCM_16")]
    )
    data, formed = sound(kind, subtype), rng.random() < 0.75
    wav = {
        "size": (4, 4),
        "tag": (20, 2),
        "channels": (22, 2),
        "rate": (24, 4),
        "bytes per second": (28, 4),
        "align": (32, 2),
        "bits": (34, 2),
    }
    if formed and kind == "WAV":
        what = rng.choice([*wav, "data"])
        at, size = wav[what] if what in wav else (data.index(b"data") + 4, 4)
        number = rng.choice([number for number in NUMBERS if number < 1 << 8 * size])
        data = data[:at] + number.to_bytes(size, "little") + data[at + size :]
    elif formed and kind == "FLAC":  # rate, channels, bits and length, packed, stand in 8 bytes
        bits, (what, at, size) = (
            int.from_bytes(data[18:26], "big"),
            rng.choice([("rate", 44, 20), ("channels", 41, 3), ("bits", 36, 5), ("length", 0, 36)]),
        )
        number = rng.choice([number for number in NUMBERS if number < 1 << size])
        data = data[:18] + (bits & ~((1 << size) - 1 << at) | number << at).to_bytes(8, "big") + data[26:]
    elif formed and kind == "AIFF":
        at, what = data.index(b"COMM") + 8 + rng.choice([0, 2, 6, 8]), "COMM"
        data = data[:at] + rng.choice([b"\0\0", b"\xff\xff", b"\x7f\xff", b"\0\x01"]) + data[at + 2 :]
    else:
        formed = False
        data, what = bytes_changed(data, rng)
    path = folder / f"a.{kind.lower()}"
    path.write_bytes(data)
    return formed, f"{kind} {what}", lambda: sound_used(path, len(data))


def sound_used(path: Path, size: int) -> None:
    wave, rate = melvoc.audio.read(path)
    if wave.numel() > 64 * size + 2**20:
        raise InsaneError(f"{wave.numel()} samples from {size} bytes")
    resample(wave[:, :2000], rate, 22050)


def answers(rng: random.Random, folder: Path, seed: int) -> tuple[bool, str, Callable[[], object]]:
    """What the Hub's client gives: a commit, a listing of files, a file."""
    path = folder / "download.safetensors"
    path.write_bytes(melvoc.to_bytes(vocoders()["hifigan"]))
    commit: Any = COMMIT
    files: Any = ["voc.safetensors", "README.md"]
    formed, what = True, rng.choice(["commit", "files", "file", "record"])
    if what == "commit":
        commit = rng.choice(["../../x", COMMIT[:-1], COMMIT.upper(), f"{COMMIT}\n", *ODD])
    elif what == "files":
        names = [
            "../x.safetensors",
            "/etc/x.safetensors",
            CONTROL,
            "x" * 5000,
            "a/b.safetensors",
            "\ud800.safetensors",
            *ODD,
        ]
        files = rng.choice([[], None, 3, [None], ["voc.safetensors"] * 2, ["a"] * 10**5, [rng.choice(names), *files]])
    elif what == "file":
        formed = rng.random() < 0.66
        data = path.read_bytes()
        data, more = stored_changed(data, rng, HEADER_KEY) if formed else bytes_changed(data, rng)
        path.write_bytes(data)
        what = f"file: {more}"
    else:
        record = folder / "cache" / "melvoc" / "repositories" / "a--b" / "main.commit"
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_bytes(rng.choice([b"", b"\xff\xfe", b"../../../x", b"0" * 10**5, COMMIT.encode()[:-1]]))
    return formed, what, lambda: asked(path, commit, files, folder)


def asked(path: Path, commit: Any, files: Any, folder: Path) -> None:
    api = mock.Mock()
    api.return_value.get_hf_file_metadata.return_value.size = 1
    api.return_value.model_info.return_value.sha = commit
    named = isinstance(files, list)
    api.return_value.model_info.return_value.siblings = (
        [SimpleNamespace(rfilename=one) for one in files] if named else files
    )
    with (
        mock.patch("huggingface_hub.HfApi", api),
        mock.patch("huggingface_hub.hf_hub_download", return_value=str(path)),
    ):
        used(melvoc.load("hf://a/b", cache_dir=folder / "cache", device="cpu", engine="torch"), 1)


def spec_file(rng: random.Random, folder: Path, seed: int) -> tuple[bool, str, Callable[[], object]]:
    tree = vocoders()["hifigan"].spec.to_dict() if rng.random() < 0.5 else published("bigvgan_v1_tiny")[1]
    changed, what = tree_changed(tree, rng)
    formed, text = rng.random() < 0.8, json.dumps(changed)
    path = folder / "spec.json"
    path.write_text(text if formed else text_changed(text, rng), encoding="utf-8", errors="replace")
    return formed, what, lambda: read_spec(str(path))


READERS: dict[str, Callable[[random.Random, Path, int], tuple[bool, str, Callable[[], object]]]] = {
    "melvoc file": melvoc_file, "pack": packed, "checkpoint": foreign, "mel": mel_file, "npy": array,
    "sound": sound_file, "hub": answers, "spec": spec_file,
}  # fmt: skip


def attempt(seed: int, folder: Path) -> Outcome:
    """Make the input of a seed, give it to its reader, and say what happened. The folder is the input's own."""
    rng = random.Random(seed)
    reader = list(READERS)[seed % len(READERS)]
    verdict, message = "used", ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        formed, change, use = READERS[reader](rng, folder, seed)
        try:
            use()
        except MelvocError as error:
            message = str(error)
            size, odd = (
                len(message.encode(errors="replace")),
                [sign for sign in message if not sign.isprintable() and sign not in "\n\t"],
            )
            verdict = "refused" if size < 2000 and not odd else f"message of {size} bytes, {odd}"
        except InsaneError as error:
            verdict, message = "insane", str(error)
        except Exception as error:
            verdict, message = type(error).__name__, str(error)[:300]
    return Outcome(reader=reader, change=change, formed=formed, verdict=verdict, message=message)
