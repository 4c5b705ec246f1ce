"""Recorded steps of a stream, with a recorder that runs on a CPU."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from networks import randomised
from torch import Tensor

from melvoc.architectures.bigvgan import BigVGAN, BigVGANConfig
from melvoc.architectures.hifigan import HiFiGAN, HiFiGANConfig
from melvoc.architectures.vocos import Vocos, VocosConfig
from melvoc.nn.engines.cuda.engine import FusedEngine
from melvoc.nn.engines.cuda.graphs import LARGEST, GraphEngine, GraphRecorder
from melvoc.nn.engines.cuda.launch import Kernels
from melvoc.nn.graph import Engine, Machine, join
from melvoc.nn.recording import ATTEMPTS, RecordingMachine

N_MELS = 6
SHAPE = {
    "n_mels": N_MELS,
    "upsample_rates": (4, 2),
    "upsample_kernel_sizes": (8, 4),
    "upsample_initial_channel": 8,
    "resblock_kernel_sizes": (3, 7),
    "resblock_dilation_sizes": ((1, 3), (1, 3)),
}
NETWORKS = {
    "bigvgan": randomised(BigVGAN(BigVGANConfig(**SHAPE))),
    "hifigan": randomised(HiFiGAN(HiFiGANConfig(**SHAPE))),
    "vocos": Vocos(VocosConfig(n_mels=N_MELS, dim=8, intermediate_dim=16, num_layers=2, n_fft=16, hop_length=4)).eval(),
}
Step = Callable[[], Tensor]


class Recorder:
    """Stands for a CUDA graph: its output is a buffer that the next run overwrites."""

    def __init__(self, broken: str | None = None) -> None:
        self.records = self.replays = 0
        self.broken = broken

    def __call__(self, step: Step) -> Step:
        self.records += 1
        if self.broken == "capture":
            raise RuntimeError("operation not permitted when stream is capturing")
        output: list[Tensor] = []

        def replay() -> Tensor:
            self.replays += 1
            y = step()
            output[:] = output or [torch.empty_like(y)]
            return output[0].copy_(y if self.broken != "numbers" else y + 0.1)

        return replay


def opened(name: str, recorder: Recorder, *, fused: bool = True) -> Machine:
    engine = FusedEngine(Kernels(None)) if fused else Engine()
    return GraphEngine(engine, GraphRecorder(record=recorder, devices=("cpu",))).open(NETWORKS[name].graph)


def whole(name: str, mel: Tensor) -> Tensor:
    with torch.no_grad():
        return NETWORKS[name](mel)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_equal_pieces_are_recorded_and_join_to_the_whole(name: str, fused: bool) -> None:
    mel, recorder = torch.randn(2, N_MELS, 24 * 12 + 5), Recorder()
    machine = opened(name, recorder, fused=fused)
    parts = mel.split(24, dim=-1)
    joined = join(*[machine(part, number == len(parts)) for number, part in enumerate(parts, 1)])
    torch.testing.assert_close(joined, whole(name, mel), atol=2e-6, rtol=1e-5)
    assert recorder.records == 1
    assert recorder.replays >= 2 + 6  # a rehearsal of two, and most of the twelve pieces


def test_pieces_of_another_size_run_directly_and_the_recording_stays(rng: torch.Generator) -> None:
    mel, recorder = torch.randn(1, N_MELS, 400, generator=rng), Recorder()
    machine = opened("bigvgan", recorder)
    sizes = [24] * 8 + [31, 24, 24, 0, 24, 40, 24]
    sizes.append(400 - sum(sizes))
    parts = mel.split(sizes, dim=-1)
    joined = join(*[machine(part, number == len(parts)) for number, part in enumerate(parts, 1)])
    torch.testing.assert_close(joined, whole("bigvgan", mel), atol=2e-6, rtol=1e-5)
    assert recorder.records == 1


def test_pieces_that_are_too_short_or_large_or_never_equal_are_not_recorded() -> None:
    for frames, batch in [([LARGEST // 2 + 1] * 5, 2), ([20, 21] * 6, 1)]:
        recorder = Recorder()
        machine = opened("hifigan", recorder)
        for count in frames:
            machine(torch.randn(batch, N_MELS, count), False)
        assert recorder.records == 0


def test_a_device_without_graphs_runs_directly() -> None:
    recorder = Recorder()
    machine = GraphEngine(Engine(), GraphRecorder(record=recorder)).open(NETWORKS["hifigan"].graph)
    for _ in range(GraphRecorder.repeats + 5):
        machine(torch.randn(1, N_MELS, 20), False)
    assert recorder.records == 0


def test_forks_do_not_share_the_buffers() -> None:
    mel, other = torch.randn(2, 1, N_MELS, 24 * 10).unbind(0)
    machine = opened("bigvgan", Recorder())
    parts = list(mel.split(24, dim=-1))
    given = [machine(part, False) for part in parts[:8]]
    assert isinstance(machine, RecordingMachine)
    fork = machine.fork()
    forked = join(*given, *[fork(part, False) for part in other.split(24, dim=-1)])
    joined = join(*given, machine(parts[8], False), machine(parts[9], True))
    torch.testing.assert_close(joined, whole("bigvgan", mel), atol=2e-6, rtol=1e-5)
    expected = whole("bigvgan", torch.cat([mel[..., : 8 * 24], other], dim=-1))[..., : forked.shape[-1]]
    settled = forked.shape[-1] - 200  # the end sees padding in `expected`
    torch.testing.assert_close(forked[..., :settled], expected[..., :settled], atol=2e-6, rtol=1e-5)


def test_pieces_already_given_are_not_overwritten() -> None:
    machine = opened("hifigan", Recorder())
    given = [machine(torch.randn(1, N_MELS, 16), False) for _ in range(8)]
    copies = [piece.clone() for piece in given]
    for _ in range(3):
        machine(torch.randn(1, N_MELS, 16), False)
    assert all(torch.equal(piece, kept) for piece, kept in zip(given, copies, strict=True))


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("capture", "failed .*not permitted when stream is capturing"),
        ("numbers", "failed .*does not give what the direct"),
    ],
)
def test_a_recording_that_fails_is_given_up_with_one_warning(broken: str, message: str) -> None:
    mel, recorder = torch.randn(1, N_MELS, 24 * 12), Recorder(broken)
    machine = opened("bigvgan", recorder)
    parts = mel.split(24, dim=-1)
    with pytest.warns(RuntimeWarning, match=message) as caught:
        joined = join(*[machine(part, number == len(parts)) for number, part in enumerate(parts, 1)])
    assert len(caught) == 1
    assert recorder.records == 1
    torch.testing.assert_close(joined, whole("bigvgan", mel), atol=2e-6, rtol=1e-5)


def test_a_state_that_changes_its_shape_ends_a_recording() -> None:
    class Growing(Machine):
        state = ("kept",)

        def __init__(self) -> None:
            self.kept = torch.zeros(1, 1, 1)

        def __call__(self, x: Tensor, last: bool) -> Tensor:
            if x.shape[-1] == 7:
                self.kept = torch.zeros(1, 1, self.kept.shape[-1] + 1)
            return x + self.kept.shape[-1]

    recorder = Recorder()
    machine = RecordingMachine(Growing(), GraphRecorder(record=recorder, devices=("cpu",)))
    x = torch.zeros(1, 1, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for grown in range(4):
            for _ in range(GraphRecorder.repeats + 3):
                assert float(machine(x, False)[0, 0, 0]) == 1 + grown
            machine(torch.zeros(1, 1, 7), False)
    assert recorder.records == ATTEMPTS
