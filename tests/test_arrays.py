"""What is taken for a tensor: any array of NumPy's, without a warning, and nothing else."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import melvoc
from melvoc import SpecError
from melvoc.arrays import as_tensor


def test_a_tensor_stays_what_it_is() -> None:
    tensor = torch.zeros(3, requires_grad=True)
    assert as_tensor(tensor, "it") is tensor


def test_memory_is_shared_where_it_can_be() -> None:
    array = np.zeros(4, dtype="float32")
    as_tensor(array, "it")[0] = 1.0
    assert array[0] == 1.0


@pytest.mark.parametrize(
    "take",
    [
        lambda wave: melvoc.MelSpectrogram(melvoc.MelSpec.preset("griffinlim"))(wave),
        lambda wave: melvoc.resample(wave, 44100, 22050),
        lambda wave: melvoc.resample(wave, 44100, 44100),
        lambda wave: melvoc.audio.fold_channels(wave),
        lambda wave: melvoc.load("griffinlim").resynthesize(wave, sample_rate=44100),
    ],
)
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_a_sound_as_soundfile_has_it_is_not_taken_for_thousands(
    take: Callable[[np.ndarray], object], channels: int
) -> None:
    with pytest.raises(SpecError, match=rf"\[44100, {channels}\], which looks like \[N, C\], .*; pass wave.T"):
        take(np.zeros((44100, channels), np.float32))


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["<f4", ">f4", "<f8", ">f8", "<f2", "<i2", ">i2"]),
    st.sampled_from(
        [(slice(None), slice(None)), (slice(None, None, -1), slice(None)), (slice(None), slice(None, None, 2))]
    ),
    st.booleans(),
    st.booleans(),
)
def test_arrays_of_any_layout(kind: str, cut: tuple[slice, slice], transposed: bool, frozen: bool) -> None:
    array = np.arange(12).reshape(3, 4).astype(kind)[cut]
    array = array.T if transposed else array
    array.flags.writeable = not frozen
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tensor = as_tensor(array, "it")
    assert tensor.tolist() == array.tolist()
    assert tensor.dtype == torch.from_numpy(np.zeros(1, kind).astype(np.dtype(kind).newbyteorder("="))).dtype


def test_a_number_of_numpys_and_an_array_on_disk(tmp_path: pytest.TempPathFactory) -> None:
    assert as_tensor(np.float32(0.5), "it").shape == ()
    np.save(f"{tmp_path}/a.npy", np.ones((2, 3), "float32"))
    assert as_tensor(np.load(f"{tmp_path}/a.npy", mmap_mode="r"), "it").sum() == 6


@pytest.mark.parametrize("values", [[0.0], (0.0,), 0.5, None, "0.5"])
def test_what_is_neither(values: object) -> None:
    kind = type(values).__name__
    with pytest.raises(SpecError, match=f"the mel is a {kind}, but it is a torch.Tensor or a NumPy array; torch.as"):
        as_tensor(values, "the mel")


@pytest.mark.parametrize("array", [np.array(["a"]), np.array([None]), np.zeros(3, "datetime64[s]")])
def test_arrays_of_what_is_no_number(array: np.ndarray) -> None:
    with pytest.raises(SpecError, match=r"the wave is a NumPy array of .*, but it is one of float32 or float64"):
        as_tensor(array, "the wave")
