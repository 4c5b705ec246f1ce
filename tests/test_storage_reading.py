"""What cannot be opened is not called damaged; what cannot be mapped is read; what is no weight is named."""

from __future__ import annotations

import dataclasses
import errno
import json
import logging
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from networks import GOLDEN, VOCODERS, random_mel
from safetensors.torch import save_file
from torch import Tensor, nn

import melvoc
from melvoc.errors import CheckpointError, FileAccessError, MelvocError
from melvoc.spectrogram.file import HEADER_KEY, KEY, VERSION, read_mel, save_mel
from melvoc.storage import reading
from melvoc.storage.configuration import read_config
from melvoc.storage.container import PACKED_WEIGHTS
from melvoc.storage.conversion import convert
from melvoc.storage.weights import read_tensors
from melvoc.train.folder import load_checkpoint

VOC = VOCODERS["vocos_tiny"]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    melvoc.save(VOC, tmp_path / "voc.safetensors")
    for ending in (".safetensors", ".npy"):
        save_mel(tmp_path / f"mel{ending}", random_mel(VOC, 5)[0], VOC.spec)
    torch.save({"format": 1}, tmp_path / "step.pt")
    save_file({"a": torch.ones(2)}, tmp_path / "generator.safetensors")
    (tmp_path / "config.json").write_text("{}")
    soundfile.write(tmp_path / "a.wav", [0.0] * 99, 16000)
    return tmp_path


READERS: dict[str, Callable[[Path], object]] = {
    "load": lambda folder: melvoc.load(folder / "voc.safetensors", device="cpu"),
    "info": lambda folder: melvoc.info(folder / "voc.safetensors"),
    "mel": lambda folder: read_mel(folder / "mel.safetensors"),
    "npy": lambda folder: read_mel(folder / "mel.npy"),
    "checkpoint": lambda folder: read_tensors(folder / "step.pt"),
    "foreign safetensors": lambda folder: read_tensors(folder / "generator.safetensors"),
    "config": lambda folder: read_config(folder / "config.json"),
    "training": lambda folder: load_checkpoint(folder / "step.pt"),
    "sound": lambda folder: melvoc.audio.read(folder / "a.wav"),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (errno.EACCES, "you may not read it; change its permissions"),
        (errno.EMFILE, "this process has too many files open; close some, or raise the limit"),
        (errno.ENOMEM, "memory is short"),
        (errno.EIO, "the disk or the network has failed"),
        (errno.ETXTBSY, "the file itself may be whole; try again"),
    ],
)
def test_what_the_system_does_not_open_is_not_damaged(
    files: Path, reader: str, code: int, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", refuse)
        message = rf"cannot be opened or read \({os.strerror(code)}\): {advice}"
        with pytest.raises(FileAccessError, match=message) as caught:
            READERS[reader](files)
    assert not isinstance(caught.value, CheckpointError)
    assert isinstance(caught.value, OSError)
    READERS[reader](files)


@pytest.fixture
def no_more_files() -> Iterator[None]:
    """As many files open as this process may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/proc/self/fd").iterdir())) + 20, hard))
    held: list[int] = []
    try:
        with suppress(OSError):
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        yield
    finally:
        for one in held:
            os.close(one)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs Linux")
@pytest.mark.parametrize("reader", READERS)
def test_too_many_open_files(files: Path, reader: str, no_more_files: None) -> None:
    with pytest.raises(FileAccessError, match="Too many open files.*close some"):
        READERS[reader](files)


@pytest.mark.parametrize("reader", ["load", "info", "mel", "foreign safetensors"])
@pytest.mark.parametrize("code", [errno.ENODEV, errno.EINVAL])
def test_where_mapping_is_impossible_the_file_is_read(
    files: Path, reader: str, code: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(reading.mmap, "mmap", refuse)
    with caplog.at_level(logging.INFO, logger="melvoc"):
        READERS[reader](files)
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert f"cannot be mapped ({os.strerror(code)}); its" in caplog.text


def test_what_is_read_instead_is_the_same(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mel = random_mel(VOC, 5)
    mapped = melvoc.load(files / "voc.safetensors", device="cpu", engine="torch").mel_to_waveform(mel)
    monkeypatch.setattr(reading, "_content", lambda source, mapped: Path(source).read_bytes())
    read = melvoc.load(files / "voc.safetensors", device="cpu", engine="torch").mel_to_waveform(mel)
    assert torch.equal(mapped, read)


def test_a_mapping_that_fails_for_want_of_memory(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise MemoryError

    monkeypatch.setattr(reading.mmap, "mmap", refuse)
    with pytest.raises(FileAccessError, match="Cannot allocate memory.*memory is short"):
        melvoc.load(files / "voc.safetensors")


@pytest.mark.parametrize("call", [melvoc.load, melvoc.info, read_mel, melvoc.audio.read, read_tensors])
def test_a_name_that_no_file_can_have(call: Callable[[str], object]) -> None:
    with pytest.raises(FileAccessError, match="File name too long.*check the path"):
        call(f"./{'x' * 999}.safetensors")


@pytest.mark.parametrize("name", ["x.pth", "x.ckpt", "x"])
@pytest.mark.parametrize("call", [melvoc.load, melvoc.info])
def test_a_path_and_its_name_give_the_same_hint(name: str, call: Callable[[Any], object], tmp_path: Path) -> None:
    path = tmp_path / name
    torch.save({"a": torch.ones(1)}, path)
    messages = []
    for given in (path, str(path)):
        with pytest.raises(CheckpointError, match="convert a published checkpoint with `melvoc convert`") as caught:
            call(given)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


# What is no weight


def test_a_torchscript_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "generator.pt"
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), path)
    with pytest.raises(CheckpointError, match=r"generator\.pt: a TorchScript program .*state dict") as caught:
        read_tensors(path)
    assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize("text", [b"", b"nonsense", b"\x80\x02csys\nexit\n.", b"PK\x03\x04" + b"\0" * 60])
def test_torchs_advice_to_load_unsafely_is_not_passed_on(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(text)
    for read in (read_tensors, load_checkpoint):
        with pytest.raises(CheckpointError, match=r"a\.pt: .*damaged") as caught:
            read(tmp_path / "a.pt")
        for word in ("weights_only", "trust", "arbitrary", "Re-running"):
            assert word not in str(caught.value)


def test_a_pickle_that_asks_for_memory(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(b"\x80\x02c__builtin__\nbytearray\nJ\x00\x00\x00\x60\x85R.")
    with pytest.raises(CheckpointError, match=r"a\.pt: asks for memory of any size \(a bytearray\)"):
        read_tensors(tmp_path / "a.pt")


def test_an_archive_that_unpacks_to_more(tmp_path: Path) -> None:
    import zipfile

    torch.save({"a": torch.zeros(10**6)}, tmp_path / "plain.pt")
    with zipfile.ZipFile(tmp_path / "plain.pt") as plain, zipfile.ZipFile(tmp_path / "small.pt", "w", 8) as small:
        for name in plain.namelist():
            small.writestr(name, plain.read(name))
    with pytest.raises(CheckpointError, match=r"small\.pt: a compressed archive, but torch writes none"):
        read_tensors(tmp_path / "small.pt")


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor", "ignore:.*[Ss]parse")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.to(torch.float8_e4m3fn), "is torch.float8_e4m3fn, but weights are floating-point numbers of 16"),
        (lambda t: t.to(torch.complex64), "is torch.complex64, but weights are floating-point numbers of 16"),
        (lambda t: t.to(torch.int8), "is torch.int8, but weights are floating-point numbers of 16"),
        (lambda t: t.to_sparse(), "is a sparse tensor, but weights are plain"),
        (lambda t: t.to("meta"), "is a meta tensor, but weights are plain"),
        (lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8), "is a quantised tensor, but weights are plain"),
        (lambda t: torch.zeros(1).expand(t.shape), "has shape .*, but only 4 bytes are stored for it"),
    ],
)
def test_tensors_that_are_no_weights(change: Callable[[Tensor], Tensor], message: str) -> None:
    state = melvoc.pack(VOC)
    key = f"{PACKED_WEIGHTS}backbone.embed.weight"
    with pytest.raises(CheckpointError, match=rf"this state: 'backbone\.embed\.weight' {message}"):
        melvoc.unpack(state | {key: change(state[key])})


def test_tensors_that_share_what_little_is_stored() -> None:
    block = torch.zeros(10**5)
    with pytest.raises(CheckpointError, match="its 99 tensors have 39600000 bytes, but only 400000 are stored"):
        reading.check_plain({str(i): block for i in range(99)}, "x")


def test_a_header_that_says_it_is_long(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes((10**9).to_bytes(8, "little") + b"{}" * 50)
    with pytest.raises(CheckpointError, match=r"a\.safetensors: damaged or cut \(it has 108 bytes and begins with 10"):
        melvoc.load(path)


def test_a_text_that_is_long(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"a": "x" * 10**6}))
    with pytest.raises(CheckpointError, match=r"config\.json: not valid \.json \(it is longer than 262144 bytes\)"):
        read_config(tmp_path / "config.json")


def test_a_mel_of_integers(tmp_path: Path) -> None:
    header = {"version": VERSION, "spec": melvoc.MelSpec.preset("griffinlim").to_dict(), "samples": None}
    mel = torch.zeros(128, 5, dtype=torch.int32)
    save_file({KEY: mel}, tmp_path / "a.safetensors", metadata={HEADER_KEY: json.dumps(header)})
    with pytest.raises(MelvocError, match=r"a\.safetensors: not a readable mel .*'mel' is torch\.int32"):
        read_mel(tmp_path / "a.safetensors")


def test_converting_what_may_not_be_read(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "strerror", lambda code: "reason")
    monkeypatch.setattr(reading, "_content", lambda *_: (_ for _ in ()).throw(PermissionError(errno.EACCES, "no")))
    config = json.loads((GOLDEN / "bigvgan_v1_tiny.json").read_text())
    with pytest.raises(FileAccessError, match=r"generator\.safetensors: cannot be opened or read \(reason\)"):
        convert(files / "generator.safetensors", config=config)


def test_what_a_file_calls_itself_does_not_reach_the_terminal_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from melvoc.cli import main
    from melvoc.storage import container
    from melvoc.storage.vocoder_file import describe

    odd = dataclasses.replace(describe(VOC), name="\x1b[31mred\nlicence: MIT", provenance={"from": "x" * 9999})
    container.write(odd, tmp_path / "voc.safetensors")
    assert main(["info", str(tmp_path / "voc.safetensors")]) == 0
    printed = capsys.readouterr().out
    assert "name: \ufffd[31mred licence: MIT\n" in printed
    assert max(map(len, printed.splitlines())) < 2000
