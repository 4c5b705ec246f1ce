"""Write a WAV beyond 4 GiB, read it back and compare every sample: that nothing is cut off where a header has 32 bits.

    python benchmarks/rf64.py --folder /tmp            # needs 9 GB there for a while; --gib 0.1 --limit 50 for a try

The sound is a counter, so that a block that is missing, doubled or misplaced is seen.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import soundfile
import torch
from torch import Tensor

from melvoc.audio import AudioReader, AudioWriter
from melvoc.audio import writer as writing

RATE, CHANNELS, BLOCK = 48000, 2, 1 << 20


def block_of(start: int, count: int) -> Tensor:
    """`[CHANNELS, count]` from a place on: the place's lower 16 bits, and its next 16, as 16-bit samples."""
    place = torch.arange(start, start + count)
    return torch.stack([(part & 0xFFFF) - 32768 for part in (place, place >> 16)]).float() / 32768


def run(folder: str, gib: float) -> None:
    """Write, read and compare."""
    total = int(gib * 2**30) // (2 * CHANNELS)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        path = Path(place) / "long.wav"
        begun = time.monotonic()
        with AudioWriter(path, sample_rate=RATE, channels=CHANNELS) as writer:
            for start in range(0, total, BLOCK):
                writer.write(block_of(start, min(BLOCK, total - start)))
        written, info = time.monotonic(), soundfile.info(path)
        print(f"{path.stat().st_size} bytes, {info.format}, {info.frames} samples of {total}", end="; ")
        print(f"written in {written - begun:.0f} s", flush=True)
        done = 0
        with AudioReader(path) as reader:
            assert reader.samples == total
            for block in reader.blocks():
                assert torch.equal(block, block_of(done, block.shape[-1])), f"differs after {done} samples"
                done += block.shape[-1]
        assert done == total, f"{done} samples of {total}"
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"read back in {time.monotonic() - written:.0f} s: every sample is the same; {peak:.0f} MB of memory")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", default=tempfile.gettempdir(), help="where there is room")
    parser.add_argument("--gib", type=float, default=4.25, help="bytes of samples, in GiB")
    parser.add_argument("--limit", type=float, help="bytes of samples in a WAV, in MiB (default: melvoc's own)")
    arguments = parser.parse_args()
    if arguments.limit is not None:
        writing.RIFF_LIMIT = int(arguments.limit * 2**20)
    run(arguments.folder, arguments.gib)
