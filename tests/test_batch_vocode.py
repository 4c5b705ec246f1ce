"""Vocode: columns in, the vocoder's sound out, whatever is wrong with a row."""

from __future__ import annotations

import inspect
import pickle
import random
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import VOCODERS, random_mel
from torch import Tensor

import melvoc
from melvoc.batch import Mel, Vocode
from melvoc.batch import vocode as module

VOC = VOCODERS["bigvgan_v2_tiny"]
BOUND = 1e-4  # the page's


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("models") / "tiny.safetensors"
    melvoc.save(VOC, file)
    return str(file)


def mels(*frames: int) -> list[np.ndarray]:
    return [random_mel(VOC, count, seed=seed)[0].numpy() for seed, count in enumerate(frames)]


def alone(mel: np.ndarray, **options: Any) -> np.ndarray:
    return VOC.mel_to_waveform(mel, **options)[0, 0].numpy()


def test_the_signature_is_the_designs() -> None:
    assert (
        str(inspect.signature(Vocode))
        .replace("'", "")
        .startswith(
            "(name_or_path: str | os.PathLike[str], device: str = auto, mel: str = mel, sound: str | None = None, "
            "rate: str | int | None = None, audio: str = audio, error: str = error, sample_rate: int | None = None, "
            "refine: int = 0)"
        )
    )


@pytest.mark.parametrize("form", ["lists", "objects", "one array", "nested lists", "tensors"])
def test_each_engines_form_of_a_batch_gives_what_the_vocoder_gives(path: str, form: str) -> None:
    rows = mels(9, 9, 9) if form == "one array" else mels(9, 30, 9, 1)
    batch: dict[str, Any] = {"id": list(range(len(rows))), "mel": rows}
    if form == "objects":
        batch["mel"] = np.empty(len(rows), dtype=object)
        for row, mel in enumerate(rows):
            batch["mel"][row] = mel
    elif form == "one array":
        batch["mel"] = np.stack(rows)
    elif form == "nested lists":
        batch["mel"] = [mel.tolist() for mel in rows]
    elif form == "tensors":
        batch["mel"] = [torch.from_numpy(mel) for mel in rows]
    made = Vocode(path, device="cpu")(batch)
    assert list(made) == ["id", "mel", "audio", "audio_rate", "error"]
    assert type(made["audio"]) is type(made["error"]) is type(made["audio_rate"]) is list
    assert list(made["error"]) == [""] * len(rows)
    assert list(made["audio_rate"]) == [VOC.sample_rate] * len(rows)
    for mel, audio in zip(rows, made["audio"], strict=True):
        assert (audio.dtype, audio.shape) == (np.float32, (mel.shape[1] * VOC.samples_per_frame,))
        np.testing.assert_allclose(audio, alone(mel), atol=BOUND, rtol=0)


@settings(max_examples=15, deadline=None)
@given(frames=st.lists(st.integers(1, 12), min_size=1, max_size=8), seed=st.integers(0, 9), size=st.integers(1, 4))
def test_a_row_does_not_depend_on_its_batch(path: str, frames: list[int], seed: int, size: int) -> None:
    rows = list(enumerate(mels(*frames)))
    random.Random(seed).shuffle(rows)
    vocode, found = Vocode(path, device="cpu"), {}
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        made = vocode({"id": [number for number, _ in part], "mel": [mel for _, mel in part]})
        found |= dict(zip(made["id"], made["audio"], strict=True))
    for number, mel in rows:
        np.testing.assert_allclose(found[number], alone(mel), atol=BOUND, rtol=0)


def test_options_reach_the_vocoder(path: str) -> None:
    mel = mels(20)[0]
    made = Vocode(path, device="cpu", mel="m", audio="a", error="e", sample_rate=16000, refine=1)({"m": [mel]})
    assert list(made) == ["m", "a", "a_rate", "e"]
    np.testing.assert_allclose(made["a"][0], alone(mel, sample_rate=16000, refine=1), atol=BOUND, rtol=0)
    assert made["a_rate"] == [16000]


def test_paths_of_saved_mels(path: str, tmp_path: Path) -> None:
    wave = 0.2 * torch.sin(torch.arange(10000) * 0.05)
    mel = VOC.mel(wave, sample_rate=VOC.sample_rate)
    melvoc.save_mel(tmp_path / "whole.safetensors", mel, VOC.spec, samples=10000)
    melvoc.save_mel(tmp_path / "two.safetensors", mel.repeat(2, 1, 1), VOC.spec)
    melvoc.save_mel(tmp_path / "other.safetensors", torch.zeros(100, 9), melvoc.MelSpec.preset("vocos_24khz_100band"))
    np.save(tmp_path / "bare.npy", mel[0].numpy())
    names = ["whole.safetensors", "bare.npy", "two.safetensors", "other.safetensors", "gone.npy"]
    made = Vocode(path, device="cpu")({"mel": [str(tmp_path / name) for name in names]})
    assert [len(audio) for audio in made["audio"]] == [10000, mel.shape[-1] * VOC.samples_per_frame, 0, 0, 0]
    assert made["error"][:2] == ["", ""]
    assert made["error"][2] == "the row has 2 mels, but a row is one [n_mels, T]; give each a row of its own"
    assert f"this mel is not {VOC.name}'s" in made["error"][3]
    assert "gone.npy: no such file" in made["error"][4]


def test_sounds_are_copied(path: str) -> None:
    waves = [0.2 * torch.sin(torch.arange(size) * 0.05) for size in (4000, 7001, 4000)]
    batch = {"wave": [wave.numpy() for wave in waves], "hz": np.array([16000, 22050, 16000])}
    made = Vocode(path, device="cpu", sound="wave", rate="hz", refine=1)(batch)
    assert made["error"] == ["", "", ""]
    for wave, rate, audio in zip(waves, (16000, 22050, 16000), made["audio"], strict=True):
        expected = VOC.resynthesize(wave, sample_rate=rate, refine=1)[0, 0].numpy()
        assert audio.shape == expected.shape
        np.testing.assert_allclose(audio, expected, atol=BOUND, rtol=0)


def test_bad_rows_become_sentences_and_the_others_sound(path: str) -> None:
    good = mels(9)[0]
    rows: list[Any] = [
        good, None, good * np.nan, good[:5], good[:, :0], good + 40, np.clip((mels(200)[0] + 4) / 2, -3, 3),
        good.astype(np.int64), [[1.0], [1.0, 2.0]], "gone.npy", good,
    ]  # fmt: skip
    made = Vocode(path, device="cpu")({"mel": rows})
    words = ["", "the mel is missing", "NaN or Inf", "bands, but this spec has n_mels=128", "without any frames",
             "this mel goes up to", "it looks like a normalised mel, not the mel of", "a log-mel is floating point",
             "of unequal or odd parts", "gone.npy: no such file", ""]  # fmt: skip
    for said, expected in zip(made["error"], words, strict=True):
        assert expected in said
        assert "\n" not in said
        assert bool(expected) == bool(said)
    assert [len(audio) > 0 for audio in made["audio"]] == [not word for word in words]
    assert {audio.dtype for audio in made["audio"]} == {np.dtype("float32")}


def test_bad_sounds_too(path: str) -> None:
    rows = [np.zeros(4000), np.zeros(0), np.full(4000, np.nan), np.zeros((2, 4000)), np.zeros(4000)]
    made = Vocode(path, device="cpu", sound="wave", rate=16000)({"wave": rows})
    assert [bool(text) for text in made["error"]] == [False, True, True, True, False]
    assert "a row is one channel" in made["error"][3]


def test_a_batch_without_rows_or_with_errors_only(path: str) -> None:
    made = Vocode(path, device="cpu")({"mel": []})
    assert made == {"mel": [], "audio": [], "audio_rate": [], "error": []}
    made = Vocode(path, device="cpu")({"mel": [np.zeros((128, 0))], "error": ["it was bad before"]})
    assert made["error"] == ["it was bad before"]


class Pitched(melvoc.Vocoder):
    """Needs a pitch."""

    def __init__(self) -> None:
        super().__init__(name="pitched", spec=VOC.spec)

    conditions = {"f0": melvoc.Condition(unit="Hz", low=0.0, high=5000.0)}  # noqa: RUF012

    def forward(self, mel: Tensor) -> Tensor:
        return (mel[:, -1:] / 5000).repeat_interleave(self.spec.hop_length, -1)


def test_conditions_are_columns_and_a_missing_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "load", lambda name, device: Pitched())
    rows = mels(4, 6, 4)
    pitch = [np.full(4, 440.0), np.full(6, 220.0), np.full(5, 110.0)]
    made = Vocode("pitched")({"mel": rows, "f0": pitch})
    assert made["error"][:2] == ["", ""]
    np.testing.assert_allclose(made["audio"][1], np.full(6 * 512, 220 / 5000), atol=1e-6)
    assert (
        made["error"][2] == "condition 'f0' is [1, 5], but for this mel it is [1, 1, 4]" or "'f0'" in made["error"][2]
    )
    with pytest.raises(melvoc.OptionError, match=r"there is no column 'f0' among 'mel'; name the one that is meant"):
        Vocode("pitched")({"mel": rows})
    made = Vocode("pitched", sound="mel", rate=16000)({"mel": [np.zeros(4000)]})
    assert "pitched needs f0 besides the mel" in made["error"][0]


def test_what_is_wrong_with_every_row_is_raised(path: str) -> None:
    with pytest.raises(melvoc.UnknownVocoderError, match="'nobody'"):
        Vocode("nobody")({"mel": []})
    with pytest.raises(melvoc.OptionError, match="there is no column 'mel' among 'm'"):
        Vocode(path, device="cpu")({"m": []})
    with pytest.raises(melvoc.OptionError, match="rate=22050 without sound: mels have their spec's"):
        Vocode(path, rate=22050)
    with pytest.raises(melvoc.SpecError, match="sample_rate=0, but it is a whole number"):
        Vocode(path, sample_rate=0)


def test_it_is_loaded_once_by_all_that_ask_for_it(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, real = [], module.load

    def counted(name: str, *, device: str) -> melvoc.Vocoder:
        calls.append(name)
        return real(name, device=device)

    monkeypatch.setattr(module, "load", counted)
    module._loaded.cache_clear()
    vocode = Vocode(path, device="cpu")
    assert not calls, "not before the first call"
    copies = [pickle.loads(pickle.dumps(vocode)) for _ in range(3)]
    assert copies[0] == vocode
    threads = [threading.Thread(target=copy, args=({"mel": mels(3)},)) for copy in copies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == [path]
    assert len(pickle.dumps(vocode)) < 1000, "the weights do not travel"
    melvoc.save(VOC, path)  # another file under the same name
    vocode({"mel": mels(3)})
    assert len(calls) == 2


def test_a_path_is_never_a_name_and_begins_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    melvoc.save(VOC, tmp_path / "voc.safetensors")
    with pytest.raises(melvoc.MissingFileError, match="griffinlim: no such file"):
        Vocode(Path("griffinlim"), device="cpu")({"mel": mels(1)})
    module._loaded.cache_clear()
    first = module.loaded("~/voc.safetensors", "cpu")
    assert module.loaded("~/voc.safetensors", "cpu") is first
    melvoc.save(VOC, tmp_path / "voc.safetensors")  # another file under the same name
    assert module.loaded("~/voc.safetensors", "cpu") is not first


def test_mel_and_vocode_are_two_halves(path: str) -> None:
    wave = 0.2 * torch.sin(torch.arange(20480) * 0.05)
    batch = {"sound": [wave.numpy(), None]}
    made = Vocode(path, device="cpu")(Mel(VOC.spec, rate=VOC.sample_rate)(batch))
    expected = VOC.mel_to_waveform(VOC.mel(wave, sample_rate=VOC.sample_rate))[0, 0].numpy()
    np.testing.assert_allclose(made["audio"][0], expected, atol=BOUND, rtol=0)
    assert made["error"] == ["", "the sound is missing; leave the row out, or fill it"]
