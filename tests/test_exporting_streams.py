"""A streaming graph's pieces join to the whole."""

from __future__ import annotations

import functools
import json
from typing import Any

import pytest
import torch
from exported import SPEC, metadata, run_in_pieces, session, some_mel, tiny
from hypothesis import example, given, settings
from hypothesis import strategies as st
from networks import pieces

from melvoc.errors import MelvocError
from melvoc.exporting.models import streaming_model
from melvoc.neural import NeuralVocoder
from melvoc.post.refine import Refine

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@functools.cache
def exported(name: str) -> tuple[NeuralVocoder, Any]:
    vocoder = tiny(name)
    return vocoder, session(streaming_model(vocoder, ()))


@pytest.mark.parametrize("name", ["hifigan", "hifigan v3", "speecht5", "bigvgan v1", "vocos", "vocos same", "wavenext"])
@settings(max_examples=5, deadline=None)
@given(frames=st.integers(1, 60), batch=st.integers(1, 2), cuts=st.lists(st.integers(0, 60), max_size=6))
@example(frames=1, batch=1, cuts=[])
@example(frames=20, batch=2, cuts=list(range(20)))
@example(frames=30, batch=1, cuts=[0, 0, 30, 30])
def test_the_pieces_join_to_the_whole(name: str, frames: int, batch: int, cuts: list[int]) -> None:
    vocoder, runtime = exported(name)
    mel = some_mel(vocoder, frames, batch)
    sound = torch.cat(run_in_pieces(runtime, pieces(mel, cuts)), dim=-1)
    torch.testing.assert_close(sound, vocoder.mel_to_waveform(mel, spec=SPEC), atol=2e-5, rtol=0)


@pytest.mark.parametrize("name", ["hifigan", "vocos", "wavenext", "bigvgan v1"])
def test_a_piece_gives_what_melvocs_stream_gives(name: str) -> None:
    """No sample later than the machines', and the latency that the metadata says."""
    vocoder, runtime = exported(name)
    mel = some_mel(vocoder, 80)
    parts = list(mel.split([7, 1, 40, 2, 30], dim=-1))
    sounds = run_in_pieces(runtime, parts)
    with vocoder.stream(spec=SPEC) as stream:
        wanted = [stream.push(part) for part in parts[:-1]]
        wanted.append(torch.cat([stream.push(parts[-1]), stream.flush()], dim=-1))
    assert [part.shape[-1] for part in sounds] == [part.shape[-1] for part in wanted]
    latency = int(runtime.get_modelmeta().custom_metadata_map["melvoc.latency_samples"])
    assert sum(part.shape[-1] for part in sounds[:-1]) == 50 * 16 - latency


def test_states_are_inputs_and_outputs_of_the_same_shape() -> None:
    runtime = exported("vocos")[1]
    states = json.loads(runtime.get_modelmeta().custom_metadata_map["melvoc.states"])
    assert [one.name for one in runtime.get_inputs()] == ["mel", "last", *states]
    assert [one.name for one in runtime.get_outputs()] == ["audio", *(f"next_{name}" for name in states)]
    kinds = {"tensor(float)": "float32", "tensor(int64)": "int64"}
    assert [kinds[one.type] for one in runtime.get_inputs()[2:]] == [state["kind"] for state in states.values()]


def test_the_state_does_not_grow() -> None:
    vocoder, runtime = exported("vocos")
    states = json.loads(runtime.get_modelmeta().custom_metadata_map["melvoc.states"])
    sizes: list[list[tuple[int, ...]]] = []
    now = {name: torch.full([1 if one == "batch" else one for one in state["shape"]], state["value"],
           dtype=getattr(torch, state["kind"])).numpy() for name, state in states.items()}  # fmt: skip
    for _ in range(6):
        feed = {"mel": some_mel(vocoder, 8).numpy(), "last": torch.zeros(1, dtype=torch.int64).numpy()}
        _, *after = runtime.run(None, feed | now)
        now = dict(zip(states, after, strict=True))
        sizes.append([one.shape for one in after])
    assert sizes[3] == sizes[4] == sizes[5]


@pytest.mark.parametrize(("name", "node"), [("istftnet", "Pad"), ("flow2gan 1", "Noise")])
def test_what_cannot_be_a_stream_says_so(name: str, node: str) -> None:
    with pytest.raises(
        MelvocError, match=f"has a {node}, for which melvoc has no streaming form in ONNX; export it whole"
    ):
        streaming_model(tiny(name), ())


def test_steps_after_the_network_are_not_streamed() -> None:
    with pytest.raises(MelvocError, match="the network alone is exported as a stream, not refine; give refine=0"):
        streaming_model(tiny("vocos"), (Refine(1),))


def test_the_metadata_is_as_of_any_file() -> None:
    said = metadata(streaming_model(tiny("wavenext"), ()))
    assert said["melvoc.name"] == "wavenext"
    assert said["sample_rate"] == "16000"
