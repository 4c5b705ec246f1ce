"""MPS without a Mac: no operation of a published network exceeds what MPS takes, and the pieces join to the whole."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

import pytest
import torch
from networks import TINY, VOCODERS, neural, random_mel
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from melvoc.audio.resampling import resample
from melvoc.neural import NeuralVocoder
from melvoc.nn.engines.mps import LARGEST, CutEngine, make_mps_engine
from melvoc.nn.graph import Engine, join
from melvoc.registry import pins

COPIES = {"aten.cat.default"}  # the whole signal is joined at the end; copying knows no limit


class Largest(TorchDispatchMode):
    """Notes the largest dimension of any result, and what gave it."""

    def __init__(self, only: Set[str] = frozenset()) -> None:
        super().__init__()
        self.size, self.by, self.only = 0, "", only

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            watched = str(func) in self.only if self.only else str(func) not in COPIES
            if isinstance(tensor, Tensor) and watched:
                self.size, self.by = max((self.size, self.by), (max(tensor.shape, default=0), str(func)))
        return result


def published(name: str) -> NeuralVocoder:
    """On the meta device, where shapes are all that is computed."""
    record, pin = pins()[name]
    with torch.device("meta"):
        return neural(record.network(pin.config), name=name, spec=pin.spec).to("meta")


@pytest.mark.parametrize("name", pins())
@pytest.mark.parametrize(("frames", "batch"), [(1, 1), (700, 2), (33, 200)])
def test_no_operation_of_a_published_network_is_beyond_mps(name: str, frames: int, batch: int) -> None:
    voc = published(name)
    mel = torch.empty(batch, voc.spec.n_mels, frames, device="meta")
    with torch.no_grad(), Largest() as largest:
        machine = make_mps_engine(voc.network, voc.spec.hop_length).open(voc.graph())
        first, rest = machine(mel, False), machine(mel[..., :0], True)
    assert join(first, rest).shape == (batch, 1, voc.spec.samples(frames))
    assert largest.size <= LARGEST, f"{largest.by} gave {largest.size}"


def test_without_the_engine_there_would_be_one() -> None:
    voc = published("bigvgan_v2_44khz_128band_512x")
    with torch.no_grad(), Largest() as largest:
        Engine().open(voc.graph())(torch.empty(1, 128, 200, device="meta"), True)
    assert largest.size > LARGEST


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("sizes", [[23], [0, 5, 0, 17, 1]])
def test_cut_pieces_join_to_the_whole_and_forks_go_their_own_way(name: str, sizes: list[int]) -> None:
    voc = VOCODERS[name]
    mel = random_mel(voc, 23, batch=5)
    machine = CutEngine(frames=4, rows=2).open(voc.graph())
    with torch.inference_mode():
        parts = mel.split(sizes, dim=-1)
        given = [machine(part, False) for part in parts]
        twin = machine.fork()
        twin(mel[..., :7], True)
        joined = join(*given, machine(mel[..., :0], True))
        torch.testing.assert_close(joined, voc.network(mel), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("orig", "new"), [(48000, 24000), (48000, 44100), (22050, 44100)])
def test_resampling_of_a_minute_is_not_beyond_mps_either(orig: int, new: int) -> None:
    convolutions = Largest({"aten.convolution.default"})
    with convolutions:
        assert resample(torch.zeros(1, 60 * orig), orig, new).shape == (1, 60 * new)
    assert 0 < convolutions.size <= LARGEST, f"{convolutions.by} gave {convolutions.size}"


def test_on_mps_that_engine_is_chosen_whatever_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    voc = neural(VOCODERS[TINY[0]].network, name="x", spec=VOCODERS[TINY[0]].spec, engine="torch")
    monkeypatch.setattr(NeuralVocoder, "device", torch.device("mps"))
    assert isinstance(voc.engine(), CutEngine)
    assert voc.block_frames == 16384 // voc.spec.hop_length
