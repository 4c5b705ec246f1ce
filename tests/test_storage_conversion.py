"""Published checkpoints become melvoc's: every kind of weight norm, every layout; nothing in a pickle ever runs."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from networks import GOLDEN, SPECS, folded
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from melvoc.errors import CheckpointError, OptionError, SpecError
from melvoc.options import LoadOptions
from melvoc.registry import architecture
from melvoc.spectrogram.spec import MelSpec
from melvoc.storage.configuration import read_config
from melvoc.storage.conversion import convert
from melvoc.storage.vocoder_file import build
from melvoc.storage.weights import fold, read_tensors

BIGVGAN = "bigvgan_v2_tiny"
HUB = GOLDEN / "hub_configs"


def published(name: str = BIGVGAN) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A golden network as its authors publish it (with weight norm and filters), and its config."""
    tensors = load_file(GOLDEN / f"{name}.safetensors")
    del tensors["mel"], tensors["wav"]
    bare = {key.removeprefix("generator."): tensor for key, tensor in tensors.items()}
    return bare, json.loads((GOLDEN / f"{name}.json").read_text())


def newer(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names that torch.nn.utils.parametrizations.weight_norm gives."""
    pairs = {".weight_g": ".parametrizations.weight.original0", ".weight_v": ".parametrizations.weight.original1"}
    renamed = {}
    for key, tensor in tensors.items():
        ending = next((old for old in pairs if key.endswith(old)), None)
        renamed[key.removesuffix(ending) + pairs[ending] if ending else key] = tensor
    return renamed


def stored(folder: Path, content: object, name: str = "bigvgan_generator.pt") -> Path:
    torch.save(content, folder / name)
    return folder / name


LAYOUTS: dict[str, Callable[[dict[str, Tensor]], object]] = {
    "published": lambda tensors: {"generator": tensors},
    "bare": lambda tensors: tensors,
    "newer torch": lambda tensors: {"generator": newer(tensors)},
    "folded": lambda tensors: {"generator": folded(tensors)},
    "state_dict": lambda tensors: {"state_dict": tensors, "epoch": 3, "steps": 1000},
    "prefixed": lambda tensors: under("generator", tensors),
    "from DDP": lambda tensors: {"generator": under("module", tensors)},
    "model": lambda tensors: {"model": tensors, "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}}, "step": 3},
    "model_g": lambda tensors: {"model": under("model_g", tensors) | under("model_d", DISCRIMINATOR)},
    "nested": lambda tensors: {"model": {"generator": tensors, "discriminator": DISCRIMINATOR}},
    "below another model": lambda tensors: {"vae.encoder.weight": torch.ones(3)} | under("tts.vocoder.net", tensors),
    "one state dict": lambda tensors: tensors | under("mpd", DISCRIMINATOR) | {"step": torch.tensor(3)},
    "an EMA beside it": lambda tensors: {"model": as_zeros(tensors), "model_ema": tensors},
    "torch's AveragedModel": lambda tensors: (
        under("generator", as_zeros(tensors))
        | {"swa_model": under("module", tensors) | {"n_averaged": torch.tensor(5)}}
    ),
    "the same twice": lambda tensors: {"generator": tensors, "alias": tensors},
}
DISCRIMINATOR = {
    "discriminators.0.conv_post.weight_g": torch.ones(1, 1, 1),
    "discriminators.0.conv_post.weight_v": torch.ones(1, 1, 1),
    "discriminators.0.convs.0.bias": torch.ones(1),
}


def under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{key}": tensor for key, tensor in tensors.items()}


def as_zeros(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: torch.zeros_like(tensor) for key, tensor in tensors.items()}


@pytest.mark.parametrize("name", ["bigvgan_v2_tiny", "bigvgan_v1_tiny", "bigvgan_resblock2_snake_tiny"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_published_weights(layout: str, name: str, tmp_path: Path) -> None:
    tensors, config = published(name)
    got = convert(stored(tmp_path, LAYOUTS[layout](tensors)), config=config)
    expected = folded(tensors)
    assert got.tensors.keys() == expected.keys()
    for key, tensor in expected.items():
        torch.testing.assert_close(got.tensors[key], tensor, rtol=0, atol=2e-7)
    assert (got.architecture, got.spec) == ("bigvgan", MelSpec.from_config(config))


WORDS = st.lists(
    st.sampled_from(["module", "model_g", "net", "generator", "mpd", "vocoder_ema", "x-1", "é"]), max_size=4
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(containers=WORDS, prefix=WORDS)
def test_any_nesting_and_any_prefix(containers: list[str], prefix: list[str], tmp_path: Path) -> None:
    tensors, config = published()
    content: dict[str, Any] = {".".join([*prefix, key]): tensor for key, tensor in tensors.items()}
    for name in containers:
        content = {name: content, "epoch": 3}
    got = convert(stored(tmp_path, content), config=config)
    assert got.tensors.keys() == folded(tensors).keys()
    below = ".".join([*reversed(containers), *prefix])
    assert got.provenance.get("found below", "") == (f"{below}." if below else "")


def test_two_generators_of_which_neither_is_a_mean(tmp_path: Path) -> None:
    tensors, config = published()
    path = stored(tmp_path, {"model": under("a", tensors) | under("b", as_zeros(tensors))})
    with pytest.raises(CheckpointError, match=r"holds this network 2 times \(model\.a\., model\.b\.\); save the one"):
        convert(path, config=config)


def test_a_container_that_holds_itself(tmp_path: Path) -> None:
    tensors, config = published()
    content: dict[str, Any] = {"generator": tensors}
    content["again"] = content
    assert convert(stored(tmp_path, content), config=config).provenance["found below"] == "generator."


def test_the_converted_network_gives_the_published_wave(tmp_path: Path) -> None:
    tensors, config = published()
    voc = build(convert(stored(tmp_path, {"generator": tensors}), config=config), LoadOptions(device="cpu"))
    golden = load_file(GOLDEN / f"{BIGVGAN}.safetensors")
    torch.testing.assert_close(voc.mel_to_waveform(golden["mel"]), golden["wav"], atol=1e-5, rtol=0)


def test_bigvgans_filters_are_dropped_and_nothing_else(tmp_path: Path) -> None:
    tensors, config = published()
    filters = [key for key in tensors if key.endswith(".filter")]
    assert filters, "the golden file has them, as the published one"
    got = convert(stored(tmp_path, tensors), config=config)
    assert not [key for key in got.tensors if "filter" in key]
    tensors["somewhere.filter"] = torch.ones(3)
    with pytest.raises(CheckpointError, match=r"has unknown somewhere\.filter"):
        convert(stored(tmp_path, tensors), config=config)


def test_safetensors_of_published_weights(tmp_path: Path) -> None:
    tensors, config = published()
    save_file(tensors, tmp_path / "model.safetensors")
    assert convert(tmp_path / "model.safetensors", config=config).tensors.keys() == folded(tensors).keys()


def test_name_licence_and_provenance(tmp_path: Path) -> None:
    tensors, config = published()
    path = stored(tmp_path, tensors)
    plain = convert(path, config=config)
    assert (plain.name, plain.licence) == (tmp_path.name, None)
    assert plain.provenance == {"converted from": "bigvgan_generator.pt"}
    full = convert(path, config=config, name="n", licence="MIT", provenance={"repository": "a/b"})
    assert (full.name, full.licence, full.provenance) == ("n", "MIT", {"repository": "a/b"})


# Weight norm


@settings(max_examples=25, deadline=None)
@given(rows=st.integers(1, 6), columns=st.integers(1, 6), taps=st.integers(1, 5), seed=st.integers(0, 999))
def test_folding_is_what_torch_computes(rows: int, columns: int, taps: int, seed: int) -> None:
    torch.manual_seed(seed)
    for layer in (nn.Conv1d(columns, rows, taps), nn.ConvTranspose1d(columns, rows, taps), nn.Linear(columns, rows)):
        with_norm = nn.utils.parametrizations.weight_norm(layer)
        state = {f"a.{key}": value.detach() for key, value in with_norm.state_dict().items()}
        got = fold(state)
        assert got.keys() == {"a.weight", "a.bias"}
        torch.testing.assert_close(got["a.weight"], with_norm.weight.detach(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("key", "half"),
    [
        ("conv_pre.weight_g", "conv_pre.weight_v' has no length"),
        ("conv_pre.weight_v", "conv_pre.weight_g' has no direction"),
    ],
)
def test_one_half_of_weight_norm(tmp_path: Path, key: str, half: str) -> None:
    tensors, config = published()
    del tensors[key]
    with pytest.raises(CheckpointError, match=rf"bigvgan_generator\.pt: '{half} beside it; the file is incomplete"):
        convert(stored(tmp_path, tensors), config=config)


def test_a_direction_of_length_zero_is_no_weight(tmp_path: Path) -> None:
    tensors, config = published()
    tensors["conv_pre.weight_v"] = torch.zeros_like(tensors["conv_pre.weight_v"])
    with pytest.raises(CheckpointError, match=r"'conv_pre\.weight' contains NaN or Inf"):
        convert(stored(tmp_path, tensors), config=config)


# Configurations


def test_a_config_as_windows_writes_it_with_unknown_keys_and_null(tmp_path: Path) -> None:
    tensors, config = published()
    text = json.dumps(config | {"resblock_initial_channel": 64, "fmax_loss": None, "new_key": {"a": [1]}}, indent=4)
    for number, raw in enumerate((text.replace("\n", "\r\n").encode(), b"\xef\xbb\xbf" + text.encode())):
        path = tmp_path / f"config{number}.json"
        path.write_bytes(raw)
        assert convert(stored(tmp_path, tensors), config=path).spec == MelSpec.from_config(config)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"not valid \.json"),
        (b"{", r"not valid \.json"),
        (b"\xff\xfe{}", r"not valid \.json"),
        (b"[1]", "holds a list, but a configuration is an object"),
        (b"null", "holds a NoneType, but a configuration is an object"),
    ],
)
def test_a_config_that_is_none(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"config\.json: {message}"):
        read_config(tmp_path / "config.json")


def test_no_config_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json: cannot be read \(No such file"):
        read_config(tmp_path / "config.json")


def test_a_yaml_config_runs_nothing(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    (tmp_path / "config.yaml").write_text(f"backbone: !!python/object/apply:os.system ['touch {mark}']\n")
    with pytest.raises(CheckpointError, match=r"config\.yaml: not valid \.yaml \(could not determine a constructor"):
        read_config(tmp_path / "config.yaml")
    assert not mark.exists()


def test_a_config_of_something_else(tmp_path: Path) -> None:
    tensors, _ = published()
    with pytest.raises(CheckpointError, match="is none of BigVGAN's .*, HiFi-GAN's .*, Vocos'"):
        convert(stored(tmp_path, tensors), config={"model_type": "bert"})


def test_a_hop_that_the_rates_do_not_give(tmp_path: Path) -> None:
    tensors, config = published()
    with pytest.raises(CheckpointError, match="upsamples by 512, but its hop size is 256; it is not the one the model"):
        convert(stored(tmp_path, tensors), config=config | {"hop_size": 256})


def test_a_config_of_a_larger_model(tmp_path: Path) -> None:
    tensors, config = published()
    with pytest.raises(CheckpointError, match=r"has shape \[.*\], but the configuration makes it \["):
        convert(stored(tmp_path, tensors), config=config | {"upsample_initial_channel": 128})


@pytest.mark.parametrize("file", sorted(HUB.iterdir()), ids=lambda file: file.name)
def test_the_hubs_own_configs_are_read(file: Path, tmp_path: Path) -> None:
    """All but the weights, which are not here: so the error names the weights, and nothing before them."""
    with pytest.raises(CheckpointError, match=r"generator\.pt lacks .*(bigvgan|vocos) with its configuration"):
        convert(stored(tmp_path, {}, "generator.pt"), config=file)


# Vocos


def vocos(change: Callable[[dict], None] = lambda values: None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tiny golden Vocos with a config of the published form."""
    tensors = load_file(GOLDEN / "vocos_tiny.safetensors")
    del tensors["mel"], tensors["wav"]
    module = json.loads((GOLDEN / "vocos_tiny.json").read_text())
    values = yaml.safe_load((HUB / "vocos-mel-24khz.yaml").read_text())
    values["backbone"]["init_args"].update(module["backbone"])
    values["head"]["init_args"].update(module["head"])
    change(values)
    return tensors, values


def test_vocos_from_yaml_with_its_features_dropped(tmp_path: Path) -> None:
    tensors, values = vocos()
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(values))
    extra = {
        "feature_extractor.mel_spec.spectrogram.window": torch.ones(1024),
        "feature_extractor.mel_spec.mel_scale.fb": torch.ones(513, 100),
        "head.istft.window": torch.hann_window(1024),
    }
    got = convert(stored(tmp_path, tensors | extra, "pytorch_model.bin"), config=path)
    assert (got.architecture, got.spec) == ("vocos", MelSpec.preset(SPECS["vocos_tiny"]))
    assert got.tensors.keys() == {key for key in tensors if key != "head.istft.window"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda v: v["feature_extractor"].update(class_path="vocos.EncodecFeatures"),
            "feature_extractor is a vocos.EncodecFeat",
        ),
        (
            lambda v: v["feature_extractor"]["init_args"].update(padding="same"),
            "padding='same', but the head's is 'cent",
        ),
        (lambda v: v["feature_extractor"]["init_args"].update(padding=["x"]), r"padding=\['x'\], but the head's is"),
        (
            lambda v: v["feature_extractor"]["init_args"].update(hop_length=300),
            "upsamples by 256, but its hop size is 300",
        ),
        (lambda v: v["head"].update(class_path="vocos.heads.IMDCTSymExpHead"), "head is a vocos.heads.IMDCTSymExpHead"),
        (lambda v: v["head"]["init_args"].update(padding="same"), "padding='center', but the head's is 'same'"),
        (
            lambda v: v["head"]["init_args"].update(padding="valid"),
            "padding='valid', but the published ones are center",
        ),
        (lambda v: v["backbone"]["init_args"].pop("dim"), "has no 'dim', which Vocos needs"),
        (lambda v: v["backbone"].update(class_path="os.system"), "backbone is a os.system, but melvoc only reads"),
    ],
)
def test_vocos_that_melvoc_does_not_have(tmp_path: Path, change: Callable[[dict], None], message: str) -> None:
    tensors, values = vocos(change)
    with pytest.raises(CheckpointError, match=message):
        convert(stored(tmp_path, tensors, "pytorch_model.bin"), config=values)


def lightning(values: dict[str, Any]) -> dict[str, Any]:
    """The training's configuration, which Lightning writes beside its checkpoints."""
    arguments = values | {"sample_rate": 24000, "initial_learning_rate": 2e-4, "mel_loss_coeff": 45}
    return {
        "seed_everything": 4444,
        "data": {"class_path": "vocos.dataset.VocosDataModule", "init_args": {"train_params": {"batch_size": 16}}},
        "model": {"class_path": "vocos.experiment.VocosExp", "init_args": arguments},
        "trainer": {"logger": None, "max_steps": 2_000_000},
    }


@pytest.mark.parametrize("nested", [lambda values: values, lightning])
def test_vocos_as_lightning_saves_it(nested: Callable[[dict[str, Any]], dict[str, Any]], tmp_path: Path) -> None:
    tensors, values = vocos()
    beside = {
        "feature_extractor.mel_spec.spectrogram.window": torch.ones(1024),
        "head.istft.window": torch.hann_window(1024),
        "multiperioddisc.discriminators.0.convs.0.weight_g": torch.ones(1),
        "multiresddisc.discriminators.0.conv_post.bias": torch.ones(1),
        "melspec_loss.mel_spec.mel_scale.fb": torch.ones(513, 100),
    }
    content = {
        "epoch": 3,
        "state_dict": tensors | beside,
        "optimizer_states": [{"state": {0: {"step": torch.tensor(3), "exp_avg": torch.ones(2)}}}],
        "hyper_parameters": {"sample_rate": 24000},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(nested(values)))
    path = stored(tmp_path, content, "vocos_checkpoint_epoch=209_step=3924480_val_loss=3.7036_44100_11.ckpt")
    for place in (path, tmp_path):
        got = convert(place)
        assert (got.architecture, got.spec) == ("vocos", MelSpec.preset(SPECS["vocos_tiny"]))
        assert got.tensors.keys() == {key for key in tensors if key != "head.istft.window"}
        assert got.provenance["found below"] == "state_dict."


def test_a_configuration_of_two_networks(tmp_path: Path) -> None:
    _, config = published()
    with pytest.raises(CheckpointError, match=r"describes several networks \(a\., b\.\); give one of these sections"):
        convert(stored(tmp_path, {}), config={"a": config, "b": {"c": 1} | config})


@pytest.mark.parametrize("path", [["generator"], ["model", "init_args", "generator"]])
def test_a_configuration_inside_another(path: list[str], tmp_path: Path) -> None:
    tensors, config = published()
    nested: dict[str, Any] = config
    for key in reversed(path):
        nested = {key: nested, "trainer": {"devices": 1}}
    got = convert(stored(tmp_path, tensors), config=nested)
    assert got.spec == MelSpec.from_config(config)


# Files that are refused


class Payload:
    """What an attacker puts into a pickle: a command, which leaves a mark when it runs."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", ["generator", "beside it", "alone"])
def test_a_malicious_pickle_is_refused_and_does_not_run(tmp_path: Path, place: str, zipped: bool) -> None:
    mark = tmp_path / "ran"
    tensors, config = published()
    bad: object = {
        "generator": {"generator": tensors | {"x": Payload(mark)}},
        "beside it": {"generator": tensors, "optimizer": Payload(mark)},
        "alone": Payload(mark),
    }[place]
    path = tmp_path / "bigvgan_generator.pt"
    torch.save(bad, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        CheckpointError,
        match=r"bigvgan_generator\.pt: this pickle asks for more than tensors.*Ask its author for safetens",
    ):
        convert(path, config=config)
    assert not mark.exists()
    torch.load(path, weights_only=False)
    assert mark.exists(), "the payload works, so that its refusal means something"


def test_a_plain_pickle_does_not_run_either(tmp_path: Path) -> None:
    (tmp_path / "g.pt").write_bytes(pickle.dumps(Payload(tmp_path / "ran")))
    with pytest.raises(CheckpointError, match=r"g\.pt: this pickle asks for more than tensors, or is damaged"):
        read_tensors(tmp_path / "g.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"RIFF1234WAVE", b"PK\x03\x04" + b"\0" * 50, b"\x80\x02}q\0."])
def test_a_file_that_is_no_checkpoint(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "g.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"g\.pt[: ]"):
        convert(tmp_path / "g.pt", config=published()[1])


@pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
def test_a_checkpoint_that_is_cut(tmp_path: Path, share: float) -> None:
    tensors, config = published()
    path = stored(tmp_path, tensors)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(CheckpointError, match=r"bigvgan_generator\.pt: .*damaged"):
        convert(path, config=config)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.ones(1)], "holds a list, but a generator is a dict of tensors"),
        ({"generator": torch.ones(1)}, "lacks activation_post.act.alpha, .*; bigvgan with its configuration has"),
        ({"mpd": {"a": torch.ones(1)}, "steps": 3}, "is not BigVGAN's generator; it looks like a discriminator: there"),
        ({"steps": 3}, "'steps' is an int, but a generator is a dict of tensors by name"),
        ({"optim_g": {"state": {0: {"exp_avg": torch.ones(1)}}}}, "it looks like an optimizer's state"),
    ],
)
def test_another_kind_of_checkpoint(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(CheckpointError, match=rf"bigvgan_generator\.pt:? .*{message}"):
        convert(stored(tmp_path, content), config=published()[1])


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"g\.pt: no such file; give the path of the published generator"):
        convert(tmp_path / "g.pt", config=published()[1])


# The real ones


@pytest.mark.parametrize(
    ("folder", "file", "channels"),
    [
        ("hifigan_ljspeech_v2", "generator_v2", 128),
        ("hifigan_universal_v1", "generator_universal.pth.tar", 512),
    ],
)
def test_the_real_checkpoints(data_dir: Path, folder: str, file: str, channels: int) -> None:
    source = data_dir / "weights" / folder
    got = convert(source / file, config=source / "config.json")
    assert (got.architecture, got.name) == ("hifigan", folder)
    assert got.config["upsample_initial_channel"] == channels
    assert got.spec == MelSpec.preset("hifigan_22khz_80band_256x")
    raw = torch.load(source / file, weights_only=True, map_location="cpu")["generator"]
    values = sum(tensor.numel() for key, tensor in raw.items() if not key.endswith(".weight_g"))
    assert sum(tensor.numel() for tensor in got.tensors.values()) == values
    expected = folded(raw)
    assert all(torch.equal(got.tensors[key], tensor) for key, tensor in expected.items())


# A key that names the mel or the network is never dropped


def vocos_config(features: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((GOLDEN / "vocos_tiny.json").read_text()) | changes
    if features is not None:
        values["feature_extractor"] = {
            "class_path": "vocos.feature_extractors.MelSpectrogramFeatures",
            "init_args": {"sample_rate": 24000, "n_fft": 1024, "hop_length": 256, "n_mels": 100} | features,
        }
    return values


def vocos_weights(tmp_path: Path) -> Path:
    tensors = load_file(GOLDEN / "vocos_tiny.safetensors")
    return stored(tmp_path, {key: value for key, value in tensors.items() if key not in ("mel", "wav")})


def test_the_forks_features_make_the_forks_mel(tmp_path: Path) -> None:
    path = vocos_weights(tmp_path)
    plain = convert(path, config=vocos_config({})).spec
    assert plain == MelSpec.preset("vocos_24khz_100band")
    further = {"f_min": 0, "f_max": 8000, "norm": "slaney", "mel_scale": "slaney"}
    fork = convert(path, config=vocos_config(further)).spec
    assert (fork.f_min, fork.f_max, fork.norm, fork.mel_scale, fork.log_floor) == (0, 8000, "slaney", "slaney", 1e-5)
    assert fork.center == plain.center


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (vocos_config({"hop": 256}), "feature_extractor has 'hop', which .* does not take; it takes sample_rate"),
        (vocos_config({"padding": "same"}), "feature padding='same', but the head's is 'center', and sound would"),
        (vocos_config({"n_mels": 80}), "a network for 100 bands and a mel of 80"),
        (vocos_config(), "no feature_extractor section, .*--spec PRESET or FILE"),
        (vocos_config({}, head={"dim": 32, "n_fft": 1024, "hop_length": 256, "window": "hann"}), "head has 'window'"),
        (vocos_config({}, head={"dim": 64, "n_fft": 1024, "hop_length": 256}), "head dim=64, but the backbone's is 32"),
        (vocos_config({}, head={"class_path": "vocos.heads.ISTFTHead", "init_args": 3}), "head is .*with init_args"),
        (
            vocos_config(feature_extractor={"class_path": "my.MatchaMelSpectrogramFeatures", "init_args": {}}),
            "feature_extractor is a my.MatchaMelSpectrogramFeatures",
        ),
    ],
)
def test_what_vocos_configs_say_is_read_or_refused(tmp_path: Path, config: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        convert(vocos_weights(tmp_path), config=config)


def test_a_mel_that_no_config_says_can_be_given(tmp_path: Path) -> None:
    spec = MelSpec.preset("vocos_24khz_100band")
    path = vocos_weights(tmp_path)
    assert convert(path, config=vocos_config(), spec=spec).spec == spec
    other = MelSpec(**spec.to_dict() | {"log_floor": 1e-5})
    with pytest.raises(CheckpointError, match=r"says another mel than was given \(log_floor: 1e-07, given 1e-05\)"):
        convert(path, config=vocos_config({}), spec=other)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("mel_base", 10, "this config says mel_base=10, which melvoc does not read"),
        ("preemphasis", 0.97, "preemphasis=0.97"),
        ("stats_path", None, None),
        ("mel_mean", [0.0], r"mel_mean=\[0.0\]"),
        ("min_level_db", -100, "min_level_db=-100"),
        ("leaky_relu_slope", 0.2, "the config says leaky_relu_slope=0.2, which BigVGANConfig does not have"),
        ("gin_channels", 256, "gin_channels=256"),
        ("lambda_melloss", 15, None),
        ("learning_rate_of_generator", 1e-4, None),
        ("resblock_initial_channel", 64, None),
        ("comment", "mine", None),
    ],
)
def test_further_keys_of_a_config_json(key: str, value: Any, message: str | None, tmp_path: Path) -> None:
    config = json.loads((GOLDEN / "bigvgan_v2_tiny.json").read_text()) | {key: value}
    layout = architecture("bigvgan").layouts[0]
    if message is None:
        assert layout.spec(config) == MelSpec.from_config({k: v for k, v in config.items() if k != key})
        layout.config(config)
        return
    with pytest.raises((OptionError, SpecError), match=message):
        layout.config(config), layout.spec(config)


@pytest.mark.parametrize(
    ("keys", "field", "expected"),
    [
        ({"mel_scale": "htk"}, "mel_scale", "htk"),
        ({"norm": None}, "norm", None),
        ({"center": True}, "center", True),
        ({"power": 2.0}, "power", 2.0),
        ({"log": "log10"}, "log", "log10"),
        ({"clip_val": 1e-7}, "log_floor", 1e-7),
        ({"pad_mode": "constant"}, "pad_mode", "constant"),
    ],
)
def test_keys_of_forks_are_read(keys: dict[str, Any], field: str, expected: object) -> None:
    config = json.loads((GOLDEN / "bigvgan_v2_tiny.json").read_text()) | keys
    assert getattr(MelSpec.from_config(config), field) == expected


def test_keys_that_contradict_each_other() -> None:
    config = json.loads((GOLDEN / "bigvgan_v2_tiny.json").read_text()) | {"clip_val": 1e-7, "log_floor": 1e-5}
    with pytest.raises(SpecError, match="says 1e-07 and 1e-05 for log_floor; remove the wrong one"):
        MelSpec.from_config(config)
