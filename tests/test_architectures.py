"""Each architecture has one record; its pins say what FIELD.md and the Hub's own configs say."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from networks import GOLDEN

import melvoc
from melvoc.architecture import Architecture, Pin
from melvoc.architectures.bigvgan import BigVGANConfig
from melvoc.architectures.hifigan import HiFiGANConfig
from melvoc.architectures.vocos import VocosConfig
from melvoc.information import list_vocoders
from melvoc.registry import own_architectures, pins
from melvoc.spectrogram.spec import MelSpec

PUBLISHED = {name: pin for name, (_, pin) in pins().items()}
ROWS = list(PUBLISHED.values())
HUB = GOLDEN / "hub_configs"
SURE = {  # FIELD.md, A2 and A4, FIELD_PINS.md, A6.3 and A6.7: revision, bytes, sha256, and how many sources show it
    "bigvgan_v2_44khz_128band_512x": (
        "95a9d1dcb12906c03edd938d77b9333d6ded7dfb", 489041291,
        "d9fe7ec6bd0b44ed9d66973d5012d8181c1570b01e5c72df51973e241dccd357", 2,
    ),
    "bigvgan_v2_24khz_100band_256x": (
        "c329ede9e9bbc100ddf5c91e2330a61921262370", 450088331,
        "6f9c5715550c9d0f11159ceb8935638da5aeb19e27d1e63677632df095e376f5", 2,
    ),
    "bigvgan_v2_22khz_80band_256x": (
        "633ff708ed5b74903e86ff1298cf4a98e921c513", 449228171,
        "e95ba25972d3de0628d99cd156e9315a9c018899bf739988959ebe3544080ced", 2,
    ),
    "bigvgan_22khz_80band": (
        "a628d29c709b442509d8c383838e6d86d4f159ef", 449217313,
        "88a217b20d46f1607f1f7c298673d73ce0f20443ccc1e90b3cc9b776c6144f05", 1,
    ),
    "bigvgan_base_24khz_100band": (
        "0f6305d0e010eaafdbf649978f46c3b5af099343", 56297637,
        "ca8bced4d3ef588e654742f732455c16abb004e49d7d3bf03edade84d3e982f2", 2,
    ),
    "bigvgan_base_22khz_80band": (
        "760f0c694aba68b8c200dd52ffd3b4ecafa7028c", 56010917,
        "e2a93f92971e1b6750d8f9b701121597cd271e473e6c189c8072be7080047735", 1,
    ),
    "vocos_mel_24khz": (
        "0feb3fdd929bcd6649e0e7c5a688cf7dd012ef21", 54365991,
        "97ec976ad1fd67a33ab2682d29c0ac7df85234fae875aefcc5fb215681a91b2a", 2,
    ),
    "hifigan_universal_v1": (
        "8229178c8e9d34c6449eaed7f0e7428d0241506a", 55788858,
        "771eaf4876485a35e25577563d390c262e23c2421e4a8c929eacfde34a5b7a60", 2,
    ),
    "lucasnewman_vocos_mel_24khz": (
        "ee89d00fac94b61e1235e0869f3e8d49711b7484", 54348264,
        "7fd11dcafe62b373156b3a12c0199bbc09b0ce1636692f97eef99ffec02fadb2", 1,
    ),
    "vocos_mel_22khz": (
        "b4b331d85370cdd94c644b5d1922a27a0b219c15", 54051047,
        "0af7b6f4b153819ada44a917135acf33944cdbb70cde0701eda3d100153799c7", 1,
    ),
    "vocos_mel_hifigan_compat_44100khz": (
        "e7d50512f731887429abfa9ba1e82d1a76f2360d", None,
        "310df58f31cd77e56c494df8389f7ebd57bf7b594c585d9221eb9fe888785572", 1,
    ),
}  # fmt: skip
FLOW2GAN = ("libritts_24khz", "24khz", "44khz_128band_512x")
UNSURE = {  # no sha256 of the present file is known; without a revision, no full one is either
    "bigvgan_v2_44khz_128band_256x": None,
    "bigvgan_v2_22khz_80band_fmax8k_256x": "a9d8b711c344f3c49cc1a05d0c8b6741cf733aa8",
    "bigvgan_24khz_100band": None,
    "wavenext_mel": "bff92f2448bb6a2e7db22d3ae33c556c5e71be47",
    **{f"flow2gan_{kind}_{steps}step": None for kind in FLOW2GAN for steps in (1, 2, 4)},
}
# Seen for other files (3M steps, an unconfirmed copy): never a pin.
OTHER_FILES = {
    "7bcf7b6af00c150e7d8ea8655e42e9b18660083713ef5a7026f0c810cf542528",
    "69a771c618be37648e7f2d1236432e6dce8e806531c56d7ae1b260ce269646f3",
    "89ea59f0e3d83f87bf80ffa4dde3a5c32a5279ee465d90dbd31c0da80878ce99",
}


def named(row: Pin) -> str:
    return row.name


def test_the_published_checkpoints_are_there_and_registered() -> None:
    assert SURE.keys() | UNSURE.keys() == PUBLISHED.keys()
    assert len(PUBLISHED) == 24
    assert set(PUBLISHED) | {"griffinlim"} <= set(list_vocoders())


@pytest.mark.parametrize("name", SURE)
def test_pins(name: str) -> None:
    row, (revision, size, sha256, sources) = PUBLISHED[name], SURE[name]
    assert (row.revision, row.bytes, row.sha256) == (revision, size, sha256)
    assert row.sure
    assert row.confidence == f"sure ({'one source' if sources == 1 else 'two or more sources'})"


@pytest.mark.parametrize("name", UNSURE)
def test_what_is_not_sure_says_what_is_missing(name: str) -> None:
    row = PUBLISHED[name]
    assert (row.sha256, row.revision, row.sure) == (None, UNSURE[name], False)
    assert "no sha256" in row.confidence
    assert "allow_unverified=True" in row.confidence
    assert ("no revision" in row.confidence and "revision=" in row.confidence) == (row.revision is None)


@pytest.mark.parametrize("row", ROWS, ids=named)
def test_identities_are_well_formed(row: Pin) -> None:
    assert row.revision is None or re.fullmatch("[0-9a-f]{40}", row.revision)
    assert row.sha256 is None or re.fullmatch("[0-9a-f]{64}", row.sha256)
    assert row.sha256 not in OTHER_FILES
    assert row.licence == ("Apache-2.0" if row.repo.startswith(("BSC-LT/", "k2-fsa/")) else "MIT")
    if row.name.startswith("bigvgan"):
        assert (row.repo, row.filename) == (f"nvidia/{row.name}", "bigvgan_generator.pt")


@pytest.mark.parametrize("row", ROWS, ids=named)
def test_parameters_are_what_the_configuration_builds(row: Pin) -> None:
    network = pins()[row.name][0].empty(row.config)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert row.parameters == count
    assert row.spec == MelSpec.preset(row.name)
    assert (row.config.hop_length, row.config.n_mels) == (row.spec.hop_length, row.spec.n_mels)
    # Weight norm adds a length a row, a torch file some names: the download is a little larger than its weights.
    assert row.bytes is None or 4 * count < row.bytes < 4 * count * 1.02


def test_field_notes_count_the_same() -> None:
    assert PUBLISHED["bigvgan_v2_24khz_100band_256x"].parameters == 112_414_512


@pytest.mark.parametrize("file", sorted(HUB.glob("*.json")), ids=lambda file: file.stem)
def test_what_ships_inside_is_what_the_hub_serves(file) -> None:  # type: ignore[no-untyped-def]
    values, row = json.loads(file.read_text()), PUBLISHED[file.stem]
    assert BigVGANConfig.from_published(values) == row.config
    assert MelSpec.from_config(values) == row.spec


def test_vocos_ships_what_the_hub_serves() -> None:
    values = yaml.safe_load((HUB / "vocos-mel-24khz.yaml").read_text())
    row = PUBLISHED["vocos_mel_24khz"]
    assert VocosConfig.from_published(values) == row.config
    features = values["feature_extractor"]["init_args"]
    spec = row.spec
    assert (spec.sample_rate, spec.n_fft, spec.hop_length, spec.n_mels, spec.center) == (
        features["sample_rate"], features["n_fft"], features["hop_length"], features["n_mels"], True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "sample_rate", "n_mels", "n_fft", "hop", "f_max"),
    [
        ("bigvgan_v2_44khz_128band_512x", 44100, 128, 2048, 512, 22050),
        ("bigvgan_v2_44khz_128band_256x", 44100, 128, 1024, 256, 22050),
        ("bigvgan_v2_24khz_100band_256x", 24000, 100, 1024, 256, 12000),
        ("bigvgan_v2_22khz_80band_256x", 22050, 80, 1024, 256, 11025),
        ("bigvgan_v2_22khz_80band_fmax8k_256x", 22050, 80, 1024, 256, 8000),
        ("bigvgan_24khz_100band", 24000, 100, 1024, 256, 12000),
        ("bigvgan_22khz_80band", 22050, 80, 1024, 256, 8000),
        ("bigvgan_base_24khz_100band", 24000, 100, 1024, 256, 12000),
        ("bigvgan_base_22khz_80band", 22050, 80, 1024, 256, 8000),
    ],
)
def test_mels_of_the_field_notes(name: str, sample_rate: int, n_mels: int, n_fft: int, hop: int, f_max: float) -> None:
    expected = MelSpec(sample_rate=sample_rate, n_fft=n_fft, hop_length=hop, n_mels=n_mels, f_max=f_max)
    assert PUBLISHED[name].spec == expected
    config = PUBLISHED[name].config
    assert isinstance(config, BigVGANConfig)
    assert config.use_tanh_at_final is config.use_bias_at_final is ("_v2_" not in name)


@pytest.mark.parametrize("row", ROWS, ids=named)
def test_info_shows_all_of_it(row: Pin) -> None:
    found = melvoc.info(row.name)
    assert (found.parameters, found.bytes, found.licence) == (row.parameters, row.bytes, row.licence)
    assert (found.spec, found.revision, found.confidence) == (row.spec, row.revision, row.confidence)
    assert found.origin == f"https://huggingface.co/{row.repo}"


@pytest.mark.parametrize("record", own_architectures(), ids=lambda record: record.name)
def test_a_record_is_named_as_its_module_and_makes_what_it_says(record: Architecture) -> None:
    assert record.network.__module__ == record.config.__module__ == f"melvoc.architectures.{record.name}"
    config = record.config.from_dict(record.config().to_dict())
    assert config == record.config()
    wave = record.network(config)(torch.zeros(2, config.n_mels, 3))
    assert wave.shape == (2, config.channels, 3 * config.hop_length)


@pytest.mark.parametrize("field", ["name", "config"])
def test_a_record_cannot_be_changed(field: str) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError, match=field):
        setattr(own_architectures()[0], field, None)


def test_the_universal_file_is_the_pinned_one(data_dir: Path) -> None:
    path = data_dir / "weights" / "hifigan_universal_v1" / "generator_universal.pth.tar"
    row = PUBLISHED["hifigan_universal_v1"]
    assert (path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest()) == (row.bytes, row.sha256)
    assert HiFiGANConfig.from_published(json.loads((path.parent / "config.json").read_text())) == row.config


@pytest.mark.parametrize("name", ["vocos_mel_24khz", "bigvgan_v2_44khz_128band_512x", "hifigan_universal_v1"])
def test_the_configuration_has_no_key_that_the_first_release_does_not_read(name: str) -> None:
    first = {
        "vocos_mel_24khz": {"n_mels", "dim", "intermediate_dim", "num_layers", "n_fft", "hop_length"},
        "hifigan_universal_v1": HIFIGAN,
        "bigvgan_v2_44khz_128band_512x": HIFIGAN
        | {"activation", "snake_logscale", "use_bias_at_final", "use_tanh_at_final"},
    }
    assert PUBLISHED[name].config.to_dict().keys() == first[name]
    assert VocosConfig(padding="same").to_dict()["padding"] == "same"


HIFIGAN = {
    "n_mels", "upsample_rates", "upsample_kernel_sizes", "upsample_initial_channel", "resblock",
    "resblock_kernel_sizes", "resblock_dilation_sizes",
}  # fmt: skip
FEATURES = {"n_mels": 80, "padding": "same", "f_min": 0, "f_max": 8000, "norm": "slaney", "mel_scale": "slaney"}


@pytest.mark.parametrize(
    ("name", "features", "sha256"),
    [
        ("vocos_mel_22khz", {"sample_rate": 22050, "n_fft": 1024, "hop_length": 256}, None),
        (
            "vocos_mel_hifigan_compat_44100khz",
            {"sample_rate": 44100, "n_fft": 2048, "hop_length": 512},
            "0d970f5cdc1913730c417b49e476bb09bb8b874583d113f71a7f10c8bb3a4b7d",
        ),
    ],
)
def test_the_forks_of_vocos_are_what_their_configs_say(name: str, features: dict[str, Any], sha256: str | None) -> None:
    """The texts of FIELD_PINS.md; the second has the published config's sha256."""
    every, row = features | FEATURES, PUBLISHED[name]
    quoted = {"norm", "mel_scale"}
    lines = [f"    {key}: {json.dumps(every[key]) if key in quoted else every[key]}" for key in ORDER]
    head = [f"    {key}: {features[key]}" for key in ("n_fft", "hop_length")]
    text = "\n".join(
        [
            *("feature_extractor:", "  class_path: vocos.feature_extractors.MelSpectrogramFeatures", "  init_args:"),
            *(*lines, "", "backbone:", "  class_path: vocos.models.VocosBackbone", "  init_args:"),
            *("    input_channels: 80", "    dim: 512", "    intermediate_dim: 1536", "    num_layers: 8", "", "head:"),
            *("  class_path: vocos.heads.ISTFTHead", "  init_args:", "    dim: 512", *head, "    padding: same"),
        ]
    )
    assert sha256 in (None, hashlib.sha256(text.encode()).hexdigest())
    layout = pins()[name][0].layouts[0]
    assert layout.config(yaml.safe_load(text)) == row.config
    assert layout.spec(yaml.safe_load(text)) == row.spec


ORDER = ("sample_rate", "n_fft", "hop_length", "n_mels", "padding", "f_min", "f_max", "norm", "mel_scale")
