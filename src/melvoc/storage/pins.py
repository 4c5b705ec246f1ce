"""The published checkpoints that melvoc loads by name: where they are, what they are, and how sure that is.

Identities were looked up in public places in November 2026. A row with a sha256 is pinned: the file must have it. One
without is only loaded where the caller allows it. The generators' configurations stand here too, so that what a
network is made of never depends on a file from the Hub.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from melvoc.spectrogram.spec import MelSpec


@dataclass(frozen=True, kw_only=True)
class Published:
    """One published checkpoint.

    Attributes:
        name: as `melvoc.load` takes it; also the name of its mel preset.
        architecture: "bigvgan" or "vocos".
        repo: on the Hugging Face Hub.
        filename: of the weights there.
        revision: the commit to pin; None where no full one is known.
        bytes: of the file.
        sha256: of the file; None where it is not known.
        sources: independent places that show the sha256.
        config: the architecture's configuration.
        parameters: weights after folding.
        licence: of the weights.
    """

    name: str
    architecture: str
    repo: str
    filename: str
    revision: str | None
    bytes: int
    sha256: str | None
    sources: str = ""
    config: Mapping[str, Any] = field(repr=False)
    parameters: int
    licence: str = "MIT"

    @property
    def spec(self) -> MelSpec:
        """The mel that it was trained on."""
        return MelSpec.preset(self.name)

    @property
    def sure(self) -> bool:
        """Whether the file can be verified."""
        return self.sha256 is not None and self.revision is not None

    @property
    def confidence(self) -> str:
        """How sure the pin is, in words."""
        if self.sure:
            return f"sure ({self.sources})"
        missing = [word for word, value in (("sha256", self.sha256), ("revision", self.revision)) if value is None]
        return f"not sure: no {' and no '.join(missing)} known; needs allow_unverified=True" + (
            " and revision=" if self.revision is None else ""
        )


def _bigvgan(
    n_mels: int, rates: tuple[int, ...], kernels: tuple[int, ...], channels: int, *, v2: bool
) -> dict[str, Any]:
    return {
        "n_mels": n_mels,
        "upsample_rates": list(rates),
        "upsample_kernel_sizes": list(kernels),
        "upsample_initial_channel": channels,
        "resblock": "1",
        "resblock_kernel_sizes": [3, 7, 11],
        "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5], [1, 3, 5]],
        "activation": "snakebeta",
        "snake_logscale": True,
        "use_tanh_at_final": not v2,
        "use_bias_at_final": not v2,
    }


_512X = ((8, 4, 2, 2, 2, 2), (16, 8, 4, 4, 4, 4), 1536)
_256X = ((4, 4, 2, 2, 2, 2), (8, 8, 4, 4, 4, 4), 1536)
_BASE = ((8, 8, 2, 2), (16, 16, 4, 4), 512)


def _row(
    name: str, n_mels: int, shape: tuple[tuple[int, ...], tuple[int, ...], int], parameters: int, *,
    revision: str | None, size: int, sha256: str | None, sources: str = "",
) -> Published:  # fmt: skip
    return Published(
        name=name, architecture="bigvgan", repo=f"nvidia/{name}", filename="bigvgan_generator.pt", revision=revision,
        bytes=size, sha256=sha256, sources=sources, parameters=parameters,
        config=_bigvgan(n_mels, *shape, v2="_v2_" in name),
    )  # fmt: skip


TWO, ONE = "two or more sources", "one source"
_ROWS = (
    _row(
        "bigvgan_v2_44khz_128band_512x", 128, _512X, 122_152_752, size=489041291, sources=TWO,
        revision="95a9d1dcb12906c03edd938d77b9333d6ded7dfb",
        sha256="d9fe7ec6bd0b44ed9d66973d5012d8181c1570b01e5c72df51973e241dccd357",
    ),
    _row(
        "bigvgan_v2_44khz_128band_256x", 128, _256X, 112_715_568, size=451292555, revision=None, sha256=None,
    ),
    _row(
        "bigvgan_v2_24khz_100band_256x", 100, _256X, 112_414_512, size=450088331, sources=TWO,
        revision="c329ede9e9bbc100ddf5c91e2330a61921262370",
        sha256="6f9c5715550c9d0f11159ceb8935638da5aeb19e27d1e63677632df095e376f5",
    ),
    _row(
        "bigvgan_v2_22khz_80band_256x", 80, _256X, 112_199_472, size=449228171, sources=TWO,
        revision="633ff708ed5b74903e86ff1298cf4a98e921c513",
        sha256="e95ba25972d3de0628d99cd156e9315a9c018899bf739988959ebe3544080ced",
    ),
    _row(
        "bigvgan_v2_22khz_80band_fmax8k_256x", 80, _256X, 112_199_472, size=449228171, sha256=None,
        revision="a9d8b711c344f3c49cc1a05d0c8b6741cf733aa8",
    ),
    _row(
        "bigvgan_24khz_100band", 100, _256X, 112_414_513, size=450077473, revision=None, sha256=None,
    ),
    _row(
        "bigvgan_22khz_80band", 80, _256X, 112_199_473, size=449217313, sources=ONE,
        revision="a628d29c709b442509d8c383838e6d86d4f159ef",
        sha256="88a217b20d46f1607f1f7c298673d73ce0f20443ccc1e90b3cc9b776c6144f05",
    ),
    _row(
        "bigvgan_base_24khz_100band", 100, _BASE, 14_015_041, size=56297637, sources=TWO,
        revision="0f6305d0e010eaafdbf649978f46c3b5af099343",
        sha256="ca8bced4d3ef588e654742f732455c16abb004e49d7d3bf03edade84d3e982f2",
    ),
    _row(
        "bigvgan_base_22khz_80band", 80, _BASE, 13_943_361, size=56010917, sources=ONE,
        revision="760f0c694aba68b8c200dd52ffd3b4ecafa7028c",
        sha256="e2a93f92971e1b6750d8f9b701121597cd271e473e6c189c8072be7080047735",
    ),
    Published(
        name="vocos_mel_24khz", architecture="vocos", repo="charactr/vocos-mel-24khz", filename="pytorch_model.bin",
        revision="0feb3fdd929bcd6649e0e7c5a688cf7dd012ef21", bytes=54365991, sources=TWO, parameters=13_531_650,
        sha256="97ec976ad1fd67a33ab2682d29c0ac7df85234fae875aefcc5fb215681a91b2a",
        config={"n_mels": 100, "dim": 512, "intermediate_dim": 1536, "num_layers": 8, "n_fft": 1024, "hop_length": 256},
    ),
)  # fmt: skip

PUBLISHED: Mapping[str, Published] = MappingProxyType({row.name: row for row in _ROWS})
