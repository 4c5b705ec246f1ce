"""The registry: entry points in, vocoders out; a broken or contested plugin is an error of its own name only."""

from __future__ import annotations

import sys
import tomllib
import types
import warnings
from collections.abc import Iterator
from importlib.metadata import Distribution, EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import melvoc
from melvoc import registry
from melvoc.errors import CheckpointError, MelvocError, OptionError, PluginError, UnknownVocoderError, kind_of
from melvoc.information import list_vocoders
from melvoc.loading import is_path
from melvoc.registry import ARCHITECTURES, VOCODERS, build_table, pins
from melvoc.spectrogram.spec import MelSpec
from melvoc.vocoder import Vocoder

SPEC = MelSpec(sample_rate=16000, n_fft=512, hop_length=128, n_mels=40)
GROUP = VOCODERS.group
MODULE = "melvoc_test_plugin"


class Silence(Vocoder):
    """A plugin's vocoder."""

    def forward(self, mel: Tensor) -> Tensor:
        return mel.new_zeros(mel.shape[0], 1, self.spec.samples(mel.shape[-1]))


class FakeDistribution(Distribution):
    """A distribution of a name and a version, without files."""

    def __init__(self, name: str, version: str = "1.0") -> None:
        self._text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"

    def read_text(self, filename: str) -> str | None:
        return self._text if filename == "METADATA" else None

    def locate_file(self, path: Any) -> Any:
        return Path(path)


def entry(name: str, value: str, distribution: str = "some-plugin", version: str = "1.0") -> EntryPoint:
    point = EntryPoint(name=name, value=value, group=GROUP)
    vars(point)["dist"] = FakeDistribution(distribution, version)  # as importlib.metadata does
    return point


@pytest.fixture
def plugin() -> Iterator[types.ModuleType]:
    """An importable module; tests put factories into it."""
    module = types.ModuleType(MODULE)
    sys.modules[MODULE] = module
    yield module
    sys.modules.pop(MODULE, None)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Adds entry points to those that are installed."""

    def add(*entries: EntryPoint) -> None:
        real = registry.entry_points
        added = {group: [point for point in entries if point.group == group] for group in (GROUP, ARCHITECTURES.group)}
        monkeypatch.setattr(registry, "entry_points", lambda group: [*real(group=group), *added[group]])

    return add


# The table


def test_the_best_builtins_come_first() -> None:
    names = list_vocoders()
    assert names[: len(pins())] == list(pins())
    assert names[0] == "bigvgan_v2_44khz_128band_512x"
    assert "griffinlim" in names
    assert len(names) == len(set(names))


def test_plugins_come_after_melvocs_own_by_the_alphabet(installed: Any) -> None:
    before = list_vocoders()
    installed(entry("zeta", "nowhere:f"), entry("alpha", "nowhere:f"))
    assert list_vocoders() == [*before, "alpha", "zeta"]


def test_build_table_is_pure_and_takes_a_distribution_twice_as_one() -> None:
    one, again, other = entry("a", "m:f"), entry("a", "m:f"), entry("a", "n:f", "other")
    table = build_table([one, again, other], [])
    assert [(claim.distribution, claim.value) for claim in table["a"]] == [("some-plugin", "m:f"), ("other", "n:f")]
    assert build_table([], []) == {}


def test_an_entry_point_of_no_known_distribution() -> None:
    class Nameless(FakeDistribution):
        name = version = None  # type: ignore[assignment]

    nameless = EntryPoint(name="a", value="m:f", group=GROUP)._for(Nameless("ghost"))  # type: ignore[attr-defined]
    for one in (EntryPoint(name="a", value="m:f", group=GROUP), nameless):
        assert build_table([one], [])["a"][0].distribution == "an unknown distribution"


def test_listing_and_info_import_no_plugin(installed: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "noisy_plugin.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    installed(entry("noisy", "noisy_plugin:load", "noisy-dist", "2.5"))
    assert "noisy" in list_vocoders()
    found = melvoc.info("noisy")
    assert (found.distribution, found.spec, found.origin) == ("noisy-dist 2.5", None, "noisy_plugin:load")
    assert "noisy_plugin" not in sys.modules


@pytest.mark.parametrize("name", list_vocoders())
def test_info_never_downloads(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)
    assert melvoc.info(name).name == name


# Names that nobody has


@pytest.mark.parametrize(
    ("name", "closest"),
    [
        ("grifinlim", "griffinlim"),
        ("bigvgan_v2_44khz_128band_512", "bigvgan_v2_44khz_128band_512x"),
        ("vocos_mel_24k", "vocos_mel_24khz"),
        ("bigvgan", "bigvgan_v2_44khz_128band_512x', 'bigvgan_v2_44khz_128band_256x"),
        ("BigVGAN_v2", "bigvgan_v2_44khz_128band_512x"),
        ("hifigan", "hifigan_universal_v1"),
    ],
)
def test_an_unknown_name_says_the_closest(name: str, closest: str) -> None:
    with pytest.raises(
        UnknownVocoderError, match=rf"no vocoder '{name}' is registered; did you mean '{closest}'.*\? A file is given"
    ):
        melvoc.load(name)
    with pytest.raises(LookupError, match=closest):
        melvoc.info(name)


def test_a_name_that_is_like_none() -> None:
    message = r"no vocoder 'qqq' is registered; melvoc\.list_vocoders\(\) lists the names\. A file is given by its path"
    with pytest.raises(UnknownVocoderError, match=message):
        melvoc.load("qqq")


def test_info_of_a_repository_says_why_not() -> None:
    with pytest.raises(UnknownVocoderError, match="hf://a/b is a repository, about which nothing is known until"):
        melvoc.info("hf://a/b")


def test_a_path_that_is_not_there() -> None:
    for path in ("none.safetensors", Path("none")):
        with pytest.raises(CheckpointError, match="none.*: no such file"):
            melvoc.load(path)
        with pytest.raises(CheckpointError, match="none.*: no such file"):
            melvoc.info(path)


# Plugins that work


def test_a_plugin_gets_name_device_dtype_and_only_the_options_that_were_set(
    installed: Any, plugin: types.ModuleType
) -> None:
    seen: dict[str, Any] = {}

    def load(name: str, **options: Any) -> Vocoder:
        seen.update(options, name=name)
        return Silence(name=name, spec=SPEC)

    plugin.load = load  # type: ignore[attr-defined]
    installed(entry("quiet", f"{MODULE}:load"))
    voc = melvoc.load("quiet", device="cpu")
    assert voc.name == "quiet"
    assert seen == {"name": "quiet", "device": torch.device("cpu"), "dtype": None}
    seen.clear()
    options: dict[str, Any] = {"revision": "r", "cache_dir": "c", "local_files_only": True}
    melvoc.load("quiet", device="cpu", dtype=torch.float16, strength=3, allow_unverified=True, **options)
    assert seen == {"name": "quiet", "device": torch.device("cpu"), "dtype": torch.float16, "strength": 3} | options


@pytest.mark.parametrize("named", [True, False])
def test_a_plugin_gets_mmap_only_if_it_names_it(installed: Any, plugin: types.ModuleType, named: bool) -> None:
    seen: list[object] = []

    def load(name: str, *, device: object, dtype: object, mmap: bool = True) -> Vocoder:
        seen.append(mmap)
        return Silence(name=name, spec=SPEC)

    plugin.load = load if named else (lambda name, *, device, dtype: load(name, device=device, dtype=dtype))  # type: ignore[attr-defined]
    installed(entry("quiet", f"{MODULE}:load"))
    melvoc.load("quiet", mmap=False)
    melvoc.load("griffinlim", mmap=False)
    assert seen == [not named]


def test_a_prefix_reaches_only_a_factory_that_names_it(installed: Any, plugin: types.ModuleType) -> None:
    seen: dict[str, Any] = {}

    def load(name: str, *, prefix: str = "", **options: Any) -> Vocoder:
        seen.update(prefix=prefix)
        return Silence(name=name, spec=SPEC)

    def other(name: str, **options: Any) -> Vocoder:
        return Silence(name=name, spec=SPEC)

    plugin.load, plugin.other = load, other  # type: ignore[attr-defined]
    installed(entry("quiet", f"{MODULE}:load"), entry("mute", f"{MODULE}:other"))
    melvoc.load("quiet", prefix="a.")
    assert seen == {"prefix": "a."}
    with pytest.raises(MelvocError, match="mute takes no option 'prefix', which is for a local file"):
        melvoc.load("mute", prefix="a.")


@pytest.mark.parametrize("option", ["strength", "revision", "cache_dir", "engine", "self_destruct"])
def test_an_option_that_a_factory_does_not_take(installed: Any, plugin: types.ModuleType, option: str) -> None:
    def load(name: str, *, device: torch.device, dtype: torch.dtype | None, depth: int = 1) -> Vocoder:
        return Silence(name=name, spec=SPEC)

    plugin.load = load  # type: ignore[attr-defined]
    installed(entry("quiet", f"{MODULE}:load"))
    with pytest.raises(MelvocError, match=f"quiet takes no option '{option}'; it takes depth"):
        melvoc.load("quiet", **{option: "x"})
    assert melvoc.load("quiet", depth=2).name == "quiet"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "griffinlim",
            {"iterations": 3},
            "griffinlim takes no option 'iterations'; it takes spec, n_iter, momentum, seed, engine, memory",
        ),
        ("griffinlim", {"revision": "x"}, "griffinlim takes no option 'revision'"),
        ("griffinlim", {"local_files_only": True}, "griffinlim takes no option 'local_files_only'"),
        ("griffinlim", {"name": "x"}, "griffinlim takes no option 'name'"),
        ("vocos_mel_24khz", {"n_iter": 3}, "vocos_mel_24khz takes no option 'n_iter'; it takes engine, memory$"),
        ("hf://a/b", {"n_iter": 3}, "hf://a/b takes no option 'n_iter'"),
        ("a.safetensors", {"revision": "x"}, r"a\.safetensors takes no option 'revision'; it takes engine, memory$"),
        ("a.safetensors", {"path": "x"}, r"a\.safetensors takes no option 'path'"),
    ],
)
def test_options_of_melvocs_own(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(MelvocError, match=message):
        melvoc.load(name, **options)


@pytest.mark.parametrize("name", ["griffinlim", "vocos_mel_24khz", "hf://a/b", "a.safetensors", "a.pt"])
@pytest.mark.parametrize("flag", ["mmap", "allow_unverified", "local_files_only"])
@pytest.mark.parametrize("value", ["no", 1, None])
def test_what_is_on_or_off_is_a_bool(name: str, flag: str, value: Any) -> None:
    with pytest.raises(OptionError, match=f"^{flag}={value!r}, but it is True or False"):
        melvoc.load(name, **{flag: value})


def test_an_option_named_as_a_factorys_first_parameter(installed: Any, plugin: types.ModuleType) -> None:
    plugin.load = lambda name, **options: Silence(name=name, spec=SPEC)  # type: ignore[attr-defined]
    installed(entry("quiet", f"{MODULE}:load"))
    with pytest.raises(MelvocError, match="quiet takes no option 'name'"):
        melvoc.load("quiet", name="x")


# Plugins that do not


@pytest.mark.parametrize("what", ["import nowhere_at_all", "raise SystemExit(3)", "1 / 0", "this is no python"])
def test_a_plugin_that_raises_at_import(
    installed: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, what: str
) -> None:
    (tmp_path / "broken_plugin.py").write_text(what)
    monkeypatch.syspath_prepend(tmp_path)
    installed(entry("broken", "broken_plugin:load", "broken-dist", "0.3"))
    assert "broken" in list_vocoders()
    assert melvoc.load("griffinlim", n_iter=1).name == "griffinlim"
    message = "vocoder 'broken' of broken-dist 0.3 cannot be imported from 'broken_plugin:load' .*uninstall broken-dist"
    with pytest.raises(PluginError, match=message) as caught:
        melvoc.load("broken")
    assert caught.value.__cause__ is not None


def test_a_plugin_whose_function_is_not_there(installed: Any, plugin: types.ModuleType) -> None:
    installed(entry("lost", f"{MODULE}:nothing"))
    with pytest.raises(PluginError, match="vocoder 'lost' of some-plugin 1.0 cannot be imported .*AttributeError"):
        melvoc.load("lost")


@pytest.mark.parametrize("value", [3, "text", SPEC, None])
def test_a_plugin_that_is_no_function(installed: Any, plugin: types.ModuleType, value: object) -> None:
    plugin.load = value  # type: ignore[attr-defined]
    installed(entry("odd", f"{MODULE}:load"))
    message = rf"vocoder 'odd': '{MODULE}:load' of some-plugin is {kind_of(value)}, but the contract is factory\("
    with pytest.raises(PluginError, match=message):
        melvoc.load("odd")


@pytest.mark.parametrize("value", [None, 3, torch.nn.Linear(1, 1), Silence])
def test_a_plugin_that_returns_nonsense(installed: Any, plugin: types.ModuleType, value: object) -> None:
    plugin.load = lambda name, *, device, dtype: value  # type: ignore[attr-defined]
    installed(entry("odd", f"{MODULE}:load"))
    message = f"of some-plugin returned {kind_of(value)}, but the contract is a melvoc.Vocoder"
    with pytest.raises(PluginError, match=message):
        melvoc.load("odd")


def test_a_plugin_that_fails_or_takes_something_else(installed: Any, plugin: types.ModuleType) -> None:
    def fails(name: str, *, device: torch.device, dtype: torch.dtype | None) -> Vocoder:
        raise ZeroDivisionError("oh")

    plugin.fails, plugin.other = fails, lambda: Silence(name="x", spec=SPEC)  # type: ignore[attr-defined]
    installed(entry("a", f"{MODULE}:fails"), entry("b", f"{MODULE}:other"))
    with pytest.raises(
        PluginError, match=r"vocoder 'a': .* of some-plugin 1\.0 failed \(ZeroDivisionError: oh\)"
    ) as caught:
        melvoc.load("a")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    with pytest.raises(PluginError, match=r"vocoder 'b': .* failed \(TypeError: .*the contract is factory\(name"):
        melvoc.load("b")


def test_a_plugin_that_exits_does_not_end_the_program(installed: Any, plugin: types.ModuleType) -> None:
    plugin.load = lambda name, *, device, dtype: sys.exit(3)  # type: ignore[attr-defined]
    installed(entry("a", f"{MODULE}:load"))
    with pytest.raises(PluginError, match=r"vocoder 'a': .* failed \(SystemExit: 3\)"):
        melvoc.load("a")


def test_a_plugins_own_melvoc_errors_are_left_alone(installed: Any, plugin: types.ModuleType) -> None:
    def load(name: str, **_: Any) -> Vocoder:
        raise CheckpointError("my.bin: cut")

    plugin.load = load  # type: ignore[attr-defined]
    installed(entry("a", f"{MODULE}:load"))
    with pytest.raises(CheckpointError, match=r"^my\.bin: cut$"):
        melvoc.load("a")


# Names that are contested


def test_two_plugins_with_one_name_are_both_named_and_disturb_nobody(installed: Any) -> None:
    installed(entry("same", "one:load", "first-dist"), entry("same", "two:load", "second-dist"))
    message = (
        r"vocoder 'same' is claimed by first-dist \(one:load\) and second-dist \(two:load\); uninstall one of them"
    )
    for ask in (melvoc.load, melvoc.info):
        with pytest.raises(PluginError, match=message):
            ask("same")
    assert list_vocoders().count("same") == 1
    assert melvoc.load("griffinlim", n_iter=1).name == "griffinlim"


@pytest.mark.parametrize("ask", [lambda: melvoc.load("griffinlim", n_iter=2), lambda: melvoc.info("griffinlim")])
def test_a_plugin_with_a_builtins_name(installed: Any, ask: Any) -> None:
    installed(entry("griffinlim", "evil:load", "evil-dist"))
    assert list_vocoders().count("griffinlim") == 1
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = ask()
    assert found.name == "griffinlim"
    assert not isinstance(found, Silence)
    assert len(caught) == 1
    assert "evil-dist claims the name 'griffinlim', which is melvoc's own; melvoc's is loaded" in str(caught[0].message)
    assert caught[0].filename == __file__, "the warning points at the caller's line"
    assert "evil" not in sys.modules


def test_melvocs_own_names_are_its_codes_whatever_its_metadata_say() -> None:
    own, other = entry("a", "melvoc.x:f", "melvoc"), entry("a", "evil:f", "aaa")
    for order in ([own, other], [other, own]):
        table = build_table(order, ["a"])
        with pytest.warns(UserWarning, match="aaa claims the name 'a'"):
            assert VOCODERS.single("a", table["a"]).distribution == "melvoc"
        assert [claim.distribution for claim in build_table(order, [])["a"]] == ["aaa"]


def test_pyproject_declares_the_names_that_the_code_has() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    declared = project["project"]["entry-points"]["melvoc.vocoders"]
    assert list(declared) == list(VOCODERS.own())
    assert set(declared.values()) == {"melvoc.loading:load"}


def test_without_metadata_melvocs_own_names_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "entry_points", lambda group: [])
    assert list_vocoders() == list(VOCODERS.own())
    assert melvoc.load("griffinlim", n_iter=1).name == "griffinlim"


# What is a path, and what a name


@pytest.mark.parametrize(
    ("given", "path"),
    [
        (Path("griffinlim"), True), ("a.safetensors", True), ("g.pth.tar", True), ("model.bin", True),
        ("./griffinlim", True), ("/nowhere/model", True), ("~/model", True), ("folder/model", True),
        ("griffinlim", False), ("hf://a/b", False), ("nobody/nothing", False), ("nvidia/bigvgan_22khz_80band", False),
    ],
)  # fmt: skip
def test_what_is_a_path(given: Any, path: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder" / "model").mkdir(parents=True)
    assert is_path(given) is path


def test_no_folder_shadows_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "griffinlim").mkdir()
    assert melvoc.load("griffinlim", n_iter=1).name == "griffinlim"


def test_a_known_repository_is_a_name() -> None:
    assert melvoc.info("nvidia/bigvgan_v2_44khz_128band_512x") == melvoc.info("bigvgan_v2_44khz_128band_512x")
    with pytest.raises(UnknownVocoderError, match="no vocoder 'nvidia/bigvgan_v3' is registered"):
        melvoc.info("nvidia/bigvgan_v3")
