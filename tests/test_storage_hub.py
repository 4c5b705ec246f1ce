"""The Hub's real client against a small local server: what is downloaded is verified, kept once, and never wrong."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hub_server import Hub, Repository
from networks import GOLDEN, VOCODERS, randomised
from safetensors.torch import load_file, save

import melvoc
from melvoc.architectures.bigvgan import BigVGAN, BigVGANConfig
from melvoc.architectures.hifigan import HiFiGAN, HiFiGANConfig
from melvoc.errors import CheckpointError, DownloadError, MelvocError, OptionError
from melvoc.options import LoadOptions
from melvoc.registry import pins
from melvoc.storage import container as checkpoints
from melvoc.storage.cache import cache_folder
from melvoc.storage.hub import fetch
from melvoc.storage.vocoder_file import describe

HERE = Path(__file__).parent
OLD, NEW = "0123456789abcdef0123456789abcdef01234567", "89abcdef0123456789abcdef0123456789abcdef"
NAME = "bigvgan_base_24khz_100band"
UNSURE = "bigvgan_v2_22khz_80band_fmax8k_256x"  # a revision, no sha256
UNKNOWN = "bigvgan_24khz_100band"  # neither


def torch_file(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def with_norm(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """As published: weight norm of the old kind on whatever has more than two dimensions, and the filters."""
    state = {}
    for key, tensor in network.state_dict().items():
        if key.endswith(".weight") and tensor.dim() == 3:
            state[key[:-6] + "weight_g"] = tensor.flatten(1).norm(dim=1).view(-1, 1, 1)
            state[key[:-6] + "weight_v"] = 3 * tensor
        else:
            state[key] = tensor
    return state | {"resblocks.0.activations.0.upsample.filter": torch.ones(1, 1, 12)}


def small_config(name: str) -> dict[str, Any]:
    rates = {"upsample_rates": [8, 8, 2, 2], "upsample_kernel_sizes": [16, 16, 4, 4], "upsample_initial_channel": 32}
    return (
        pins()[name][1].config.to_dict()
        | rates
        | {"resblock_kernel_sizes": [3], "resblock_dilation_sizes": [[1, 3, 5]]}
    )


def generator(name: str) -> bytes:
    network = randomised(BigVGAN(BigVGANConfig.from_dict(small_config(name))))
    return torch_file({"generator": with_norm(network)})


FILES = {name: generator(name) for name in (NAME, UNSURE, UNKNOWN)}
SMALL = {name: {"config": small_config(name)} for name in FILES}
PINS = SMALL | {
    NAME: {"config": small_config(NAME), "revision": OLD, "sha256": hashlib.sha256(FILES[NAME]).hexdigest()},
    UNSURE: {"config": small_config(UNSURE), "revision": OLD},
}
CONFIG_22K = json.loads((GOLDEN / "bigvgan_resblock2_snake_tiny.json").read_text())


def published_repositories() -> dict[str, Repository]:
    """The real layout; the newest commit has other weights, and no config is to be trusted."""
    return {
        pins()[name][1].repo: Repository(
            {
                OLD: {"bigvgan_generator.pt": data, "config.json": b"not to be trusted", "README.md": b"hello"},
                NEW: {"bigvgan_generator.pt": data[:-1] + b"x", "config.json": b"{}"},
            }
        )
        for name, data in FILES.items()
    }


class Child:
    """A process that loads one vocoder after another."""

    def __init__(self, endpoint: str, home: Path, **more: str) -> None:
        dropped = ("HF_", "MELVOC_", "XDG_CACHE_HOME", "PINS")
        environment = {key: value for key, value in os.environ.items() if not key.startswith(dropped)}
        environment |= {
            "HF_ENDPOINT": endpoint, "HF_HOME": str(home / "hf"), "XDG_CACHE_HOME": str(home / "xdg"),
            "HF_HUB_DISABLE_TELEMETRY": "1", "PINS": json.dumps(PINS),
        } | more  # fmt: skip
        self.errors = ""
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "hub_child.py")], env=environment, text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def send(self, name: str, **options: Any) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps({"name": name} | options) + "\n")
        self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(f"the child died: {self.close()}")
        return json.loads(line)  # type: ignore[no-any-return]

    def load(self, name: str, **options: Any) -> dict[str, Any]:
        """The answer: what was loaded, or the error."""
        self.send(name, **{key: str(value) if isinstance(value, Path) else value for key, value in options.items()})
        return self.answer()

    def close(self) -> str:
        """What it wrote to stderr."""
        _, errors = self.process.communicate(timeout=60)
        return errors


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Hub, Child]]:
    """One server and one child for most tests; each test has caches of its own."""
    with Hub() as hub:
        child = Child(hub.endpoint, tmp_path_factory.mktemp("home"))
        yield hub, child
        child.close()


@pytest.fixture
def hub(running: tuple[Hub, Child]) -> Hub:
    running[0].clear()
    running[0].repositories.update(published_repositories())
    return running[0]


@pytest.fixture
def child(running: tuple[Hub, Child]) -> Child:
    return running[1]


@pytest.fixture(scope="module")
def impatient(running: tuple[Hub, Child], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    """A child that waits a second where others wait ten."""
    short = {"HF_HUB_ETAG_TIMEOUT": "1", "HF_HUB_DOWNLOAD_TIMEOUT": "1"}
    child = Child(running[0].endpoint, tmp_path_factory.mktemp("home"), **short)
    yield child
    child.close()


def fetched(child: Child, repo: str, files: list[str], cache_dir: Path) -> None:
    """Files in the client's own cache, from another program."""
    answer = child.load(repo, call="fetch", files=files, revision=OLD, cache_dir=cache_dir)
    assert len(answer["files"]) == len(files)


def kept(folder: Path) -> list[str]:
    """What a later load could take: melvoc's own files."""
    found = [file for file in folder.rglob("*.safetensors") if "melvoc" in file.parts]
    return sorted(file.name for file in found if "downloads" not in file.parts)


def failed(answer: dict[str, Any], kind: str, pattern: str) -> None:
    assert answer.get("error") == kind, answer
    assert re.search(pattern, answer["message"]), answer["message"]
    assert "\n" not in answer["message"]


# Published names


def test_the_first_load_downloads_verifies_and_converts(hub: Hub, child: Child, tmp_path: Path) -> None:
    first = child.load(NAME, cache_dir=tmp_path)
    assert first.get("digest"), first
    assert first["name"] == NAME
    sha256 = hashlib.sha256(FILES[NAME]).hexdigest()
    expected = {"repository": f"nvidia/{NAME}", "revision": OLD, "file": "bigvgan_generator.pt", "sha256": sha256}
    assert first["provenance"] == expected | {"verified": "yes", "found below": "generator."}
    assert hub.downloads() == 1
    assert not [request for request in hub.requests if "config.json" in request], "the Hub's config is not trusted"
    assert not [request for request in hub.requests if "main" in request or NEW in request]
    assert kept(tmp_path) == [f"{NAME}-{OLD[:12]}.safetensors"]
    hub.requests.clear()
    for options in ({}, {"local_files_only": True}, {"revision": OLD}):
        assert child.load(NAME, cache_dir=tmp_path, **options)["digest"] == first["digest"]
    assert hub.requests == [], "what is kept needs no network"


@pytest.mark.parametrize("field", ["spec", "config"])
@pytest.mark.parametrize("call", ["load", "download"])
def test_what_another_version_has_described_otherwise_is_made_anew(
    hub: Hub, child: Child, tmp_path: Path, field: str, call: str
) -> None:
    first = child.load(NAME, cache_dir=tmp_path)
    (path,) = tmp_path.rglob(f"{NAME}-*.safetensors")
    right = checkpoints.read(path, mapped=False)
    wrong = {"spec": right.spec.replace(f_max=8000.0), "config": right.config | {"snake_logscale": False}}
    older = {key: value for key, value in right.config.items() if key != "snake_logscale"}
    checkpoints.write(dataclasses.replace(right, config=older), path)
    assert child.load(NAME, call=call, cache_dir=tmp_path)["log"] == [], "a field that has come since has its default"
    checkpoints.write(dataclasses.replace(right, **{field: wrong[field]}), path)
    failed(child.load(NAME, call=call, cache_dir=tmp_path, local_files_only=True), "DownloadError", "load it once")
    assert path.is_file(), "a version that goes without it may need it"
    answer = child.load(NAME, call=call, cache_dir=tmp_path)
    assert hub.downloads() == 2
    assert any("another version of melvoc has described" in line for line in answer["log"])
    again = checkpoints.read(path)
    assert (again.spec, again.config) == (right.spec, right.config)
    assert child.load(NAME, cache_dir=tmp_path)["digest"] == first["digest"]
    assert hub.downloads() == 2


def test_it_works_with_the_network_gone_and_without_the_client(tmp_path: Path) -> None:
    with Hub(published_repositories()) as hub:
        child = Child(hub.endpoint, tmp_path, TQDM_POSITION="-1")  # a bar, though this is no terminal
        first, errors = child.load(NAME), child.close()
        assert errors == "", "bars are the command line's"
    later = Child(hub.endpoint, tmp_path)
    second = later.load(NAME)
    assert second["digest"] == first["digest"]
    assert second["client"] == "None", "what is kept needs no client"
    assert later.close() == ""


def test_local_files_only_never_touches_the_network(hub: Hub, child: Child, tmp_path: Path) -> None:
    for name in (NAME, "hf://someone/mine", f"hf://someone/mine@{OLD}"):
        failed(child.load(name, cache_dir=tmp_path, local_files_only=True), "DownloadError", "load it once")
    assert hub.requests == []


def test_local_files_only_takes_what_the_clients_cache_has(hub: Hub, child: Child, tmp_path: Path) -> None:
    first = child.load(NAME, cache_dir=tmp_path / "a")
    fetched(child, f"nvidia/{NAME}", ["bigvgan_generator.pt"], tmp_path / "b")
    hub.requests.clear()
    assert child.load(NAME, cache_dir=tmp_path / "b", local_files_only=True)["digest"] == first["digest"]
    assert hub.requests == []
    assert list((tmp_path / "b" / "huggingface").rglob("bigvgan_generator.pt")), "what another fetched stays"


def test_a_file_that_was_tampered_with(hub: Hub, child: Child, tmp_path: Path) -> None:
    good = hub.repositories[f"nvidia/{NAME}"].commits[OLD]
    bad = bytearray(good["bigvgan_generator.pt"])
    bad[len(bad) // 2] ^= 1
    hub.repositories[f"nvidia/{NAME}"].commits[OLD] = good | {"bigvgan_generator.pt": bytes(bad)}
    for options in ({}, {"allow_unverified": True}):
        failed(
            child.load(NAME, cache_dir=tmp_path, **options), "DownloadError", "has sha256 .* is pinned: .*tampered with"
        )
        assert kept(tmp_path) == []
    assert hub.downloads() == 2, "the bad file was not kept, so that it is asked for again"
    failed(child.load(NAME, cache_dir=tmp_path, local_files_only=True), "DownloadError", "not in the cache")
    hub.repositories[f"nvidia/{NAME}"].commits[OLD] = good
    assert child.load(NAME, cache_dir=tmp_path)["digest"]


@pytest.mark.parametrize("name", [NAME, UNSURE])
def test_a_download_that_is_cut(hub: Hub, child: Child, tmp_path: Path, name: str) -> None:
    hub.cut_after = len(FILES[name]) // 2
    options = {"cache_dir": tmp_path, "allow_unverified": name == UNSURE}
    failed(child.load(name, **options), "DownloadError", "could not be downloaded: check the network")
    assert kept(tmp_path) == []
    failed(child.load(name, **options, local_files_only=True), "DownloadError", "not in the cache")
    hub.cut_after = None
    assert child.load(name, **options)["digest"], "the next load goes on, or begins again"


def test_an_unverified_file_that_is_damaged_is_asked_for_again(hub: Hub, child: Child, tmp_path: Path) -> None:
    files = hub.repositories[f"nvidia/{UNSURE}"].commits[OLD]
    good, files["bigvgan_generator.pt"] = files["bigvgan_generator.pt"], files["bigvgan_generator.pt"][:5000]
    failed(child.load(UNSURE, cache_dir=tmp_path, allow_unverified=True), "CheckpointError", "damaged")
    assert kept(tmp_path) == []
    files["bigvgan_generator.pt"] = good
    assert child.load(UNSURE, cache_dir=tmp_path, allow_unverified=True)["digest"]


def test_a_file_in_the_clients_cache_that_is_not_the_pinned_one(hub: Hub, child: Child, tmp_path: Path) -> None:
    hub.repositories[f"nvidia/{NAME}"].commits[OLD] |= {"bigvgan_generator.pt": b"another one"}
    fetched(child, f"nvidia/{NAME}", ["bigvgan_generator.pt"], tmp_path)
    answer = child.load(NAME, cache_dir=tmp_path)
    failed(answer, "DownloadError", r"is pinned: .*with; remove .*snapshots/.*/bigvgan_generator\.pt, try again")
    (path,) = (tmp_path / "huggingface").rglob("snapshots/*/*")
    assert path.read_bytes() == b"another one", "it is not melvoc's to remove"


def test_what_another_program_keeps_stays_where_melvoc_cannot_read_it(hub: Hub, child: Child, tmp_path: Path) -> None:
    theirs = {"pytorch_model.bin": b"of another kind", "config.yaml": vocos_pair()["config.yaml"]}
    hub.repositories["someone/pair"] = Repository({OLD: theirs})
    fetched(child, "someone/pair", list(theirs), tmp_path)
    failed(child.load(f"hf://someone/pair@{OLD}", cache_dir=tmp_path, allow_unverified=True), "CheckpointError", "")
    there = (tmp_path / "huggingface").rglob("snapshots/*/*")
    assert {path.name: path.read_bytes() for path in there} == theirs


def test_what_is_not_there(hub: Hub, child: Child, tmp_path: Path) -> None:
    del hub.repositories[f"nvidia/{NAME}"].commits[OLD]["bigvgan_generator.pt"]
    failed(child.load(NAME, cache_dir=tmp_path), "DownloadError", "there is no such file or revision")
    del hub.repositories[f"nvidia/{NAME}"].commits[OLD]
    failed(child.load(NAME, cache_dir=tmp_path), "DownloadError", "there is no such file or revision")
    del hub.repositories[f"nvidia/{NAME}"]
    failed(child.load(NAME, cache_dir=tmp_path), "DownloadError", "does not exist or needs a token; .* set HF_TOKEN")
    assert kept(tmp_path) == []


def test_a_token_is_sent_and_opens_the_door(hub: Hub, child: Child, tmp_path: Path) -> None:
    repository = hub.repositories[f"nvidia/{NAME}"]
    repository.token = "hf_secret"
    for repository.gated in (False, True):  # 401 and 403
        answer = child.load(NAME, cache_dir=tmp_path)
        failed(answer, "DownloadError", "needs a token; check the name, or set HF_TOKEN")
    hub.tokens.clear()
    with_token = Child(hub.endpoint, tmp_path, HF_TOKEN="hf_secret")
    answer = with_token.load(NAME, cache_dir=tmp_path)
    assert answer.get("digest"), answer
    assert "Bearer hf_secret" in hub.tokens
    assert "hf_secret" not in with_token.close()


# A network that does not answer


@pytest.mark.parametrize("name", [NAME, "hf://someone/mine", f"hf://someone/mine@{OLD}", "hf://someone/mine/a.pt"])
def test_a_network_that_never_answers(hub: Hub, impatient: Child, tmp_path: Path, name: str) -> None:
    hub.silent = True
    answer = impatient.load(name, cache_dir=tmp_path)
    failed(answer, "DownloadError", r"could not be downloaded: check the network.*[Tt]imed out")
    assert answer["reason"] == "offline"
    assert len(hub.requests) == 1, "one question, which is not repeated"
    assert kept(tmp_path) == []


def test_a_download_that_stalls_midway(hub: Hub, impatient: Child, tmp_path: Path) -> None:
    hub.stall_after = len(FILES[NAME]) // 2
    answer = impatient.load(NAME, cache_dir=tmp_path)
    failed(answer, "DownloadError", r"could not be downloaded: check the network.*[Tt]imed out")
    assert answer["reason"] == "offline"
    assert hub.downloads() == 6, "the client goes on five times where it stopped"
    assert kept(tmp_path) == []
    assert {path.name for path in (tmp_path / "melvoc").iterdir()} == {"models", "downloads"}
    assert not list((tmp_path / "melvoc" / "models").iterdir())
    hub.stall_after = None
    assert impatient.load(NAME, cache_dir=tmp_path).get("digest"), "the next load goes on, or begins again"
    assert not list((tmp_path / "melvoc" / "downloads").iterdir())


# Progress and cancelling


def stages(events: list[list[Any]]) -> list[str]:
    """The stages in order, after checking each: from 0 to its total, forwards, with the same total."""
    runs: list[list[list[Any]]] = []
    for event in events:
        if not runs or event[1] == 0 < runs[-1][-1][1]:
            runs.append([])
        runs[-1].append(event)
    for run in runs:
        assert len({(stage, total) for stage, _, total in run}) == 1, run
        done = [event[1] for event in run]
        assert done == sorted(done)
        assert (done[0], done[-1]) == (0, run[0][2])
    return [run[0][0] for run in runs]


def test_the_stages_of_a_load(hub: Hub, child: Child, tmp_path: Path) -> None:
    answer = child.load(NAME, cache_dir=tmp_path, progress={})
    assert stages(answer["events"]) == ["find", "download", "convert", "load"]
    (total,) = {event[2] for event in answer["events"] if event[0] == "download"}
    assert total == len(FILES[NAME])
    assert stages(child.load(NAME, cache_dir=tmp_path, progress={})["events"]) == ["load"]


def test_a_slow_download_says_how_far_it_is(hub: Hub, child: Child, tmp_path: Path) -> None:
    chunk = 10 << 20  # bytes that the client writes at a time
    hub.repositories[f"nvidia/{UNSURE}"].commits[OLD]["bigvgan_generator.pt"] = bytes(2 * chunk)
    hub.stall_after = chunk + 1000
    watching = {"stage": "download", "done": 1}
    answer = child.load(UNSURE, call="download", cache_dir=tmp_path, allow_unverified=True, progress=watching)
    assert answer["error"] == "StoppedError", answer
    stage, done, total = answer["events"][-1]
    assert (stage, total) == ("download", 2 * chunk)
    assert 0 < done <= hub.stall_after, "what has arrived"
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("stage", ["find", "download", "convert", "load", "check"])
@pytest.mark.parametrize("name", [NAME, "hf://someone/pair"])
def test_what_a_progress_function_raises_cancels(hub: Hub, child: Child, tmp_path: Path, stage: str, name: str) -> None:
    hub.repositories["someone/pair"] = Repository({OLD: vocos_pair()})
    call = "download" if stage == "check" else "load"
    options = {"cache_dir": tmp_path, "allow_unverified": True}
    for done in (0, 1):
        answer = child.load(name, call=call, progress={"stage": stage, "done": done}, **options)
        assert (answer["error"], answer["message"]) == ("StoppedError", stage)
        left = [path.name for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".commit"]
        assert len(left) <= (stage in ("load", "check") or (stage, done) == ("convert", 1)), left
        assert all(name.endswith(".safetensors") for name in left), "whole files only"
    assert child.load(name, **options).get("digest"), "and the next one starts anew"


def test_a_download_that_stalls_gives_signs_of_life_and_can_be_cancelled(
    hub: Hub, child: Child, tmp_path: Path
) -> None:
    hub.stall_after = 0
    answer = child.load(NAME, cache_dir=tmp_path, progress={"stage": "download", "calls": 4})
    assert answer["error"] == "StoppedError"
    assert answer["events"][-4:] == [["download", 0, len(FILES[NAME])]] * 4
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    hub.stall_after = None
    assert child.load(NAME, cache_dir=tmp_path).get("digest"), "no lock is left"


def test_a_silent_network_gives_signs_of_life_and_can_be_cancelled(hub: Hub, child: Child, tmp_path: Path) -> None:
    hub.silent = True
    answer = child.load("hf://someone/mine", cache_dir=tmp_path, progress={"stage": "find", "calls": 4})
    assert (answer["error"], answer["events"]) == ("StoppedError", [["find", 0, 1]] * 4)


def test_the_clients_chatter_stays_inside(hub: Hub, tmp_path: Path) -> None:
    short = {"HF_HUB_ETAG_TIMEOUT": "1", "HF_HUB_DOWNLOAD_TIMEOUT": "1", "TQDM_POSITION": "-1"}  # bars, if any
    noisy = Child(hub.endpoint, tmp_path, **short)
    hub.cut_after = len(FILES[NAME]) // 2
    failed(noisy.load(NAME, cache_dir=tmp_path, progress={}), "DownloadError", "could not be downloaded")
    hub.cut_after = None
    assert noisy.load(NAME, cache_dir=tmp_path).get("digest")
    answer = noisy.load(NAME, call="settings")
    assert (answer["level"], answer["bars"], answer["ignored"]) == ("WARNING", True, False), "all is as it was"
    assert noisy.close() == ""


# What is there


def test_cached_says_what_needs_no_network(hub: Hub, child: Child, tmp_path: Path) -> None:
    where = {"cache_dir": tmp_path}
    assert child.load(NAME, call="cached", **where)["cached"] is False
    path = child.load(NAME, call="download", **where)["path"]
    answer = child.load(NAME, call="cached", **where)
    assert (answer["cached"], answer["all"]) == (True, {NAME: [path]})
    assert child.load(UNKNOWN, call="cached", **where)["cached"] is False
    other = {"cache_dir": tmp_path / "other"}
    fetched(child, f"nvidia/{NAME}", ["bigvgan_generator.pt"], tmp_path / "other")
    fetched(child, f"nvidia/{UNSURE}", ["README.md"], tmp_path / "other")
    answer = child.load(NAME, call="cached", **other)
    assert answer["cached"] is True, "the Hub's client has it"
    (listed,) = answer["all"][NAME]
    assert listed.endswith(f"snapshots/{OLD}/bigvgan_generator.pt")
    hub.requests.clear()
    assert child.load(NAME, local_files_only=True, **other).get("digest")
    assert hub.requests == []


def test_every_vocoder_lies_on_the_disk_once(hub: Hub, child: Child, tmp_path: Path) -> None:
    assert child.load(NAME, cache_dir=tmp_path).get("digest")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [f"{NAME}-{OLD[:12]}.safetensors"]


def test_pruning_keeps_the_only_file_of_another_program(hub: Hub, child: Child, tmp_path: Path) -> None:
    """Of the same repository and commit, but not what melvoc has converted."""
    files = {"voc.safetensors": melvoc_file(), "other.bin": b"x", "other.safetensors": b"x"}
    hub.repositories["someone/mine"] = Repository({OLD: files})
    where = {"cache_dir": tmp_path}
    assert child.load(f"hf://someone/mine@{OLD}/voc.safetensors", **where).get("digest")
    for other in ("other.bin", "other.safetensors"):
        fetched(child, "someone/mine", [other], tmp_path)
        assert child.load(NAME, call="prune", **where)["freed"] == {}
        (path,) = tmp_path.rglob(f"snapshots/*/{other}")
        path.unlink()


def test_what_a_cache_has_is_not_all_that_there_is(hub: Hub, child: Child, tmp_path: Path) -> None:
    """Offline the only file is taken; online, where there are two, one has to be named."""
    hub.repositories["someone/two"] = Repository(
        {OLD: {"u.safetensors": melvoc_file(), "v.safetensors": melvoc_file()}}
    )
    fetched(child, "someone/two", ["v.safetensors"], tmp_path)
    name = f"hf://someone/two@{OLD}"
    assert child.load(name, cache_dir=tmp_path, local_files_only=True).get("digest")
    failed(child.load(name, cache_dir=tmp_path), "DownloadError", "has 2 safetensors files")


def test_two_revisions_contradict_each_other(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="hf://a/b@v1 with revision='v2', which is another; give one of them"):
        melvoc.load("hf://a/b@v1", revision="v2", cache_dir=tmp_path, local_files_only=True)


def test_a_name_that_no_repository_has(hub: Hub, child: Child, tmp_path: Path) -> None:
    answer = child.load("hf://owner/repo.git", cache_dir=tmp_path)
    failed(answer, "DownloadError", "no repository on the Hub can have this name, which is owner/name")
    assert answer["reason"] == "not found"


def test_pruning_keeps_one_copy_and_what_others_use(hub: Hub, child: Child, tmp_path: Path) -> None:
    where = {"cache_dir": tmp_path}
    hub.repositories["someone/else"] = Repository({OLD: {"model.bin": b"x"}})
    hub.repositories["someone/mine"] = Repository({OLD: {"voc.safetensors": melvoc_file()}})
    fetched(child, f"nvidia/{NAME}", ["bigvgan_generator.pt"], tmp_path)  # as an earlier melvoc left it
    fetched(child, f"nvidia/{UNSURE}", ["bigvgan_generator.pt", "config.json"], tmp_path)  # another program's
    fetched(child, "someone/mine", ["voc.safetensors"], tmp_path)
    fetched(child, "someone/else", ["model.bin"], tmp_path)
    assert child.load(NAME, call="prune", **where)["freed"] == {}, "the only copies stay"
    for name in (NAME, UNSURE, f"hf://someone/mine@{OLD}"):
        assert child.load(name, allow_unverified=name == UNSURE, **where).get("digest")
    freed = child.load(NAME, call="prune", **where)["freed"]
    sizes = {Path(path).name: size for path, size in freed.items()}
    assert sizes == {"bigvgan_generator.pt": len(FILES[NAME]), "voc.safetensors": len(melvoc_file())}
    theirs = tmp_path / "huggingface"
    assert sorted(path.name for path in theirs.rglob("snapshots/*/*")) == [
        "bigvgan_generator.pt", "config.json", "model.bin"
    ]  # fmt: skip
    assert child.load(NAME, call="prune", **where)["freed"] == {}
    hub.requests.clear()
    for name in (NAME, f"hf://someone/mine@{OLD}"):
        assert child.load(name, **where).get("digest")
    assert hub.requests == []


def test_info_of_a_repository_is_what_the_cache_has(hub: Hub, child: Child, tmp_path: Path) -> None:
    hub.repositories["someone/pair"] = Repository({OLD: vocos_pair()})
    options = {"cache_dir": tmp_path}
    failed(
        child.load("hf://someone/pair", call="info", **options),
        "UnknownVocoderError",
        r"nothing is known until it is in the cache; melvoc\.download\('hf://someone/pair'\) gets it",
    )
    assert hub.requests == []
    child.load("hf://someone/pair", call="download", allow_unverified=True, **options)
    hub.requests.clear()
    for name in ("hf://someone/pair", f"hf://someone/pair@{OLD}"):
        known = child.load(name, call="info", **options)
        assert (known["name"], known["revision"], known["cached"]) == ("pair", OLD, True), known
        assert known["parameters"] > 1000
    assert hub.requests == []
    listed = child.load(NAME, call="cached", **options)["all"]
    assert list(listed) == [f"hf://someone/pair@{OLD}"]


def test_a_full_disk(hub: Hub, child: Child, tmp_path: Path) -> None:
    answer = child.load(NAME, cache_dir=tmp_path, free=1000)
    failed(answer, "DownloadError", r"0 MB are free at .*make room, or set MELVOC_CACHE")
    assert answer["reason"] == "disk"
    answer = child.load(NAME, cache_dir=tmp_path, full=True)
    failed(answer, "DownloadError", r"cannot be written .*No space left on device")
    assert answer["reason"] == "disk"
    assert kept(tmp_path) == []


def test_a_damaged_file_in_the_cache_is_named(hub: Hub, child: Child, tmp_path: Path) -> None:
    path = Path(child.load(NAME, call="download", cache_dir=tmp_path)["path"])
    path.write_bytes(path.read_bytes()[:1000])
    for call in ("load", "download"):
        answer = child.load(NAME, call=call, cache_dir=tmp_path)
        assert (answer["error"], answer["path"]) == ("CheckpointError", str(path))


# What cannot be verified


def test_rows_without_a_sha256_need_allow_unverified(hub: Hub, child: Child, tmp_path: Path) -> None:
    message = f"{UNSURE} cannot be verified: no sha256 is known for it. .*pass allow_unverified=True$"
    failed(child.load(UNSURE, cache_dir=tmp_path), "DownloadError", message)
    assert hub.requests == []
    answer = child.load(UNSURE, cache_dir=tmp_path, allow_unverified=True)
    assert answer["provenance"]["verified"] == "no"
    assert kept(tmp_path) == [f"{UNSURE}-{OLD[:12]}-unverified.safetensors"]
    failed(child.load(UNSURE, cache_dir=tmp_path), "DownloadError", "cannot be verified")


def test_rows_without_a_revision_need_one(hub: Hub, child: Child, tmp_path: Path) -> None:
    both = "no sha256 is known for it.*pass allow_unverified=True, and a full commit as revision=.*never main"
    failed(child.load(UNKNOWN, cache_dir=tmp_path), "DownloadError", both)
    message = "no full revision is known for it, .* pass revision= with a full commit"
    failed(child.load(UNKNOWN, cache_dir=tmp_path, allow_unverified=True), "DownloadError", message)
    for branch in ("main", OLD[:7], "v2.4"):
        answer = child.load(UNKNOWN, cache_dir=tmp_path, allow_unverified=True, revision=branch)
        failed(answer, "DownloadError", f"revision='{branch}', but a name stands for one commit")
    assert hub.requests == []
    assert child.load(UNKNOWN, cache_dir=tmp_path, allow_unverified=True, revision=OLD)["digest"]


def test_another_revision_than_the_pinned_one(hub: Hub, child: Child, tmp_path: Path) -> None:
    hub.repositories[f"nvidia/{NAME}"].commits[NEW]["bigvgan_generator.pt"] = FILES[UNKNOWN]
    message = "cannot be verified: a revision other than the pinned one was requested. .*allow_unverified=True$"
    failed(child.load(NAME, cache_dir=tmp_path, revision=NEW), "DownloadError", message)
    pinned = child.load(NAME, cache_dir=tmp_path)
    other = child.load(NAME, cache_dir=tmp_path, revision=NEW, allow_unverified=True)
    assert other["provenance"]["revision"] == NEW
    assert child.load(NAME, cache_dir=tmp_path)["digest"] == pinned["digest"]


# Caches and the environment


def test_the_environments_caches(tmp_path: Path) -> None:
    with Hub(published_repositories()) as hub:
        settings = {"HF_HUB_CACHE": str(tmp_path / "theirs"), "MELVOC_CACHE": str(tmp_path / "melvoc-mine")}
        child = Child(hub.endpoint, tmp_path / "home", **settings)
        assert child.load(NAME).get("digest")
        child.close()
        assert not (tmp_path / "theirs").exists(), "melvoc downloads into its own cache"
        assert [path.name for path in (tmp_path / "melvoc-mine" / "models").glob("*.safetensors")]
        assert not (tmp_path / "home").exists(), "nothing goes anywhere else"


def test_cache_dir_is_the_root_of_both(hub: Hub, child: Child, tmp_path: Path) -> None:
    fetched(child, f"nvidia/{NAME}", ["bigvgan_generator.pt"], tmp_path)
    hub.requests.clear()
    assert child.load(NAME, cache_dir=tmp_path).get("digest")
    assert hub.requests == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["huggingface", "melvoc"]


@pytest.mark.slow
def test_offline_by_environment(tmp_path: Path) -> None:
    with Hub(published_repositories()) as hub:
        child = Child(hub.endpoint, tmp_path, HF_HUB_OFFLINE="1")
        failed(child.load(NAME), "DownloadError", "not in the cache, and the network is off")
        failed(child.load("hf://a/b"), "DownloadError", "could not be downloaded: .*network is off")
        online = Child(hub.endpoint, tmp_path)
        assert online.load(NAME).get("digest")
        hub.requests.clear()
        assert child.load(NAME).get("digest"), "what is kept needs no network"
        assert hub.requests == []
        child.close(), online.close()


def test_a_cache_that_cannot_be_written(hub: Hub, child: Child, tmp_path: Path) -> None:
    (tmp_path / "melvoc").write_text("a file where the folder should be")
    for name, options in ((NAME, {}), ("hf://someone/mine", {})):
        hub.repositories["someone/mine"] = Repository({OLD: {}})
        answer = child.load(name, cache_dir=tmp_path, **options)
        failed(
            answer, "DownloadError", "melvoc's cache .* cannot be used .*; set MELVOC_CACHE to a folder you may write"
        )


def test_a_read_only_cache_says_so_and_still_gives_what_it_has(hub: Hub, child: Child, tmp_path: Path) -> None:
    first = child.load(NAME, cache_dir=tmp_path)
    models = tmp_path / "melvoc" / "models"
    models.chmod(0o555)
    try:
        if os.access(models, os.W_OK):
            pytest.skip("whoever runs this (root) may write into a read-only folder")
        assert child.load(NAME, cache_dir=tmp_path)["digest"] == first["digest"]
        answer = child.load(UNSURE, cache_dir=tmp_path, allow_unverified=True)
        failed(answer, "DownloadError", "melvoc's cache .* cannot be used .*; set MELVOC_CACHE")
    finally:
        models.chmod(0o755)


@pytest.mark.slow
def test_two_processes_at_once(hub: Hub, tmp_path: Path) -> None:
    children = [Child(hub.endpoint, tmp_path) for _ in range(2)]
    for one in children:
        one.send(NAME)
    answers = [one.answer() for one in children]
    assert answers[0].get("digest"), answers
    assert answers[0]["digest"] == answers[1]["digest"]
    assert hub.downloads() == 1, "one downloads, the other waits"
    for one in children:
        one.close()
    assert not list((tmp_path / "xdg").rglob("*.part*"))


def test_the_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MELVOC_CACHE", str(tmp_path / "named"))
    assert cache_folder() == tmp_path / "named"
    assert cache_folder(tmp_path) == tmp_path / "melvoc"
    monkeypatch.delenv("MELVOC_CACHE")
    assert cache_folder().name == "melvoc"


def test_an_unsure_row_is_refused_before_anything_else() -> None:
    with pytest.raises(DownloadError, match="cannot be verified"):
        fetch(*pins()[UNKNOWN], LoadOptions())


# Repositories: hf://owner/repo


def melvoc_file() -> bytes:
    return checkpoints.to_bytes(describe(VOCODERS["bigvgan_resblock2_snake_tiny"]))


@pytest.mark.parametrize("name", [NAME, "hf://somebody/something"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "nonsense"}, "engine='nonsense', but it is 'auto' or 'torch'"),
        ({"memory": "some"}, "memory='some', but it is 'auto' or 'low'"),
        ({"n_iter": 3}, "takes no option 'n_iter'; it takes .*engine"),
    ],
)
def test_options_are_checked_before_anything_is_downloaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, options: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr("melvoc.storage.client._translated", lambda *_: pytest.fail("the Hub was asked"))
    with pytest.raises(MelvocError, match=message):
        melvoc.load(name, cache_dir=tmp_path, **options)
    assert not list(tmp_path.iterdir())


def test_a_repository_with_one_melvoc_file(hub: Hub, child: Child, tmp_path: Path) -> None:
    hub.repositories["someone/mine"] = Repository({OLD: {"voc.safetensors": melvoc_file(), "README.md": b"hi"}})
    first = child.load("hf://someone/mine", cache_dir=tmp_path)
    assert first.get("name") == "bigvgan_resblock2_snake_tiny", first
    # A new commit on main changes nothing here: main was resolved once, and recorded.
    hub.repositories["someone/mine"].commits[NEW] = {}
    hub.requests.clear()
    for options in ({}, {"local_files_only": True}):
        assert child.load("hf://someone/mine", cache_dir=tmp_path, **options)["digest"] == first["digest"]
    assert hub.requests == []
    record = next(tmp_path.rglob("main.commit"))
    assert record.read_text().strip() == OLD
    failed(
        child.load(f"hf://someone/mine@{NEW}", cache_dir=tmp_path), "DownloadError", "has neither .*; it has no files"
    )


@pytest.mark.parametrize("revision", [OLD, OLD[:8]])
@pytest.mark.parametrize("inside", [True, False])
def test_a_revision_of_a_repository(hub: Hub, child: Child, tmp_path: Path, revision: str, inside: bool) -> None:
    hub.repositories["someone/mine"] = Repository({OLD: {"v.safetensors": melvoc_file()}, NEW: {}})
    name, options = (f"hf://someone/mine@{revision}", {}) if inside else ("hf://someone/mine", {"revision": revision})
    assert child.load(name, cache_dir=tmp_path, **options).get("digest")
    assert len(list(tmp_path.rglob(f"{OLD}.safetensors"))) == 1


def test_several_melvoc_files(hub: Hub, child: Child, tmp_path: Path) -> None:
    two = {"a.safetensors": melvoc_file(), "b.safetensors": melvoc_file()}
    hub.repositories["someone/two"] = Repository({OLD: two})
    message = r"has 2 safetensors files \(a\.safetensors, b\.safetensors\); name one"
    failed(child.load("hf://someone/two", cache_dir=tmp_path), "DownloadError", message)


def test_a_revision_that_is_not_there_is_named(hub: Hub, child: Child, tmp_path: Path) -> None:
    hub.repositories["someone/one"] = Repository({OLD: {"a.safetensors": melvoc_file()}})
    message = r"hf://someone/one@v9 could not be downloaded: there is no such file or revision"
    failed(child.load("hf://someone/one@v9", cache_dir=tmp_path), "DownloadError", message)


def test_nothing_that_melvoc_reads(hub: Hub, child: Child, tmp_path: Path) -> None:
    files = {"README.md": b"x", "flow.onnx": b"y", "other.safetensors": save({"x": torch.ones(1)})}
    hub.repositories["someone/none"] = Repository({OLD: files})
    message = r"has neither a melvoc .*; it has README.md, .*\(other\.safetensors is safetensors, but not melvoc's\)"
    failed(child.load("hf://someone/none", cache_dir=tmp_path), "DownloadError", message)


def test_a_melvoc_file_that_does_not_fit_is_not_kept(hub: Hub, child: Child, tmp_path: Path) -> None:
    broken = describe(VOCODERS["bigvgan_resblock2_snake_tiny"])
    del broken.tensors["conv_pre.bias"]
    files = {"v.safetensors": checkpoints.to_bytes(broken)}
    hub.repositories["someone/mine"] = Repository({OLD: files})
    failed(child.load("hf://someone/mine", cache_dir=tmp_path), "CheckpointError", r"lacks conv_pre\.bias")
    assert kept(tmp_path) == []
    files["v.safetensors"] = melvoc_file()
    assert child.load("hf://someone/mine", cache_dir=tmp_path).get("digest")


def bigvgan_pair() -> dict[str, bytes]:
    tensors = load_file(GOLDEN / "bigvgan_resblock2_snake_tiny.safetensors")
    state = {key.removeprefix("generator."): t for key, t in tensors.items() if key not in ("mel", "wav")}
    return {"bigvgan_generator.pt": torch_file({"generator": state}), "config.json": json.dumps(CONFIG_22K).encode()}


def hifigan_pair() -> dict[str, bytes]:
    network = randomised(HiFiGAN(HiFiGANConfig(upsample_initial_channel=32)))
    generator_keys = ("activation", "snake_logscale", "resblock", "resblock_kernel_sizes", "resblock_dilation_sizes")
    values = {key: value for key, value in CONFIG_22K.items() if key not in generator_keys}
    values |= network.config.to_dict() | {"num_mels": 80}
    weights = torch_file({"generator": {k: v for k, v in with_norm(network).items() if "filter" not in k}})
    return {"generator_v2": weights, "config.json": json.dumps(values).replace("\n", "\r\n").encode()}


def vocos_pair() -> dict[str, bytes]:
    tensors = load_file(GOLDEN / "vocos_tiny.safetensors")
    del tensors["mel"], tensors["wav"]
    values = yaml.safe_load((GOLDEN / "hub_configs" / "vocos-mel-24khz.yaml").read_text())
    module = json.loads((GOLDEN / "vocos_tiny.json").read_text())
    for part in ("backbone", "head"):
        values[part]["init_args"].update(module[part])
    extra = {"feature_extractor.mel_spec.mel_scale.fb": torch.ones(513, 100)}
    return {"pytorch_model.bin": torch_file(tensors | extra), "config.yaml": yaml.safe_dump(values).encode()}


@pytest.mark.parametrize("foreign", [False, True], ids=["alone", "beside foreign safetensors"])
@pytest.mark.parametrize("pair", [bigvgan_pair, hifigan_pair, vocos_pair], ids=lambda pair: pair.__name__)
def test_published_pairs(hub: Hub, child: Child, tmp_path: Path, pair: Any, foreign: bool) -> None:
    more = {"model.safetensors": save({"x": torch.ones(1)})} if foreign else {}
    hub.repositories["someone/pair"] = Repository({OLD: pair() | more})
    answer = child.load("hf://someone/pair", cache_dir=tmp_path)
    failed(answer, "DownloadError", "which cannot be verified; if you trust it, pass allow_unverified=True")
    assert kept(tmp_path) == []
    answer = child.load("hf://someone/pair", cache_dir=tmp_path, allow_unverified=True)
    assert answer.get("name") == "pair", answer
    assert answer["provenance"]["revision"] == OLD
    assert answer["provenance"]["verified"] == "no"
    failed(child.load("hf://someone/pair", cache_dir=tmp_path), "DownloadError", "which cannot be verified")
    hub.requests.clear()
    again = child.load("hf://someone/pair", cache_dir=tmp_path, allow_unverified=True, local_files_only=True)
    assert again["digest"] == answer["digest"]
    assert hub.requests == []


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            {"generator_v3": b""},
            r"hf://someone/pair: has 2 checkpoints \(generator_v2, generator_v3\); give one of them",
        ),
        ({"config.yaml": b""}, r"hf://someone/pair: has config\.json, config\.yaml; say with --config which"),
    ],
)
def test_several_pairs_are_refused_as_in_a_folder(
    hub: Hub, child: Child, tmp_path: Path, more: dict[str, bytes], message: str
) -> None:
    files = hifigan_pair() | more
    hub.repositories["someone/pair"] = Repository({OLD: files})
    failed(child.load("hf://someone/pair", cache_dir=tmp_path, allow_unverified=True), "CheckpointError", message)
    folder = tmp_path / "pair"
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data or b"\x80\x02")
    with pytest.raises(CheckpointError, match=message.removeprefix("hf://someone/")):
        melvoc.load(folder, allow_unverified=True)


def test_what_lies_beside_published_weights_is_no_choice(hub: Hub, child: Child, tmp_path: Path) -> None:
    more = {"training_args.bin": b"x", "old/generator_v2": b"x", "old/config.json": b"{}"}
    hub.repositories["someone/pair"] = Repository({OLD: hifigan_pair() | more})
    answer = child.load("hf://someone/pair", cache_dir=tmp_path, allow_unverified=True)
    assert answer.get("provenance", {}).get("file") == "generator_v2", answer


# From the client's cache alone


@pytest.mark.parametrize("way", ["local_files_only", "a network that never answers", "HF_HUB_OFFLINE"])
def test_what_the_clients_cache_has_needs_no_network(
    hub: Hub, child: Child, impatient: Child, tmp_path: Path, way: str
) -> None:
    hub.repositories["someone/pair"] = Repository({OLD: {f"sub/{name}": data for name, data in vocos_pair().items()}})
    name, options = f"hf://someone/pair@{OLD}/sub/pytorch_model.bin", {"cache_dir": tmp_path, "allow_unverified": True}
    fetched(child, "someone/pair", ["sub/pytorch_model.bin", "sub/config.yaml"], tmp_path)
    first = child.load(name, **options)
    assert first.get("digest"), first
    files = tmp_path / "huggingface" / "models--someone--pair"
    (files / "refs").mkdir(exist_ok=True)
    (files / "refs" / "main").write_text(OLD)  # as a download of main by another program leaves it
    hub.requests.clear()
    if way == "local_files_only":
        options["local_files_only"] = True
    elif way == "HF_HUB_OFFLINE":
        child = Child(hub.endpoint, tmp_path, HF_HUB_OFFLINE="1")
    else:
        child, hub.silent = impatient, True
    for named in (name, "hf://someone/pair@main/sub/pytorch_model.bin", "hf://someone/pair/sub/pytorch_model.bin"):
        for file in (tmp_path / "melvoc").rglob("*.safetensors"):
            file.unlink()
        answer = child.load(named, **options)
        assert answer.get("digest") == first["digest"], answer
        said = [f"hf://someone/pair: without the network; main is {OLD} in the cache of the Hub's client"]
        assert answer["log"] == ([] if named == name else said)
    assert not list(tmp_path.rglob("*.commit")), "what main is was not asked, and is not recorded"
    assert not [request for request in hub.requests if not hub.silent]
    for absent in ("hf://someone/pair@v2", f"hf://someone/pair@{NEW}", "hf://someone/else", NAME):
        answer = child.load(absent, **options)
        failed(answer, "DownloadError", "load it once|check the network")
        assert answer["reason"] == "offline"
    if way == "HF_HUB_OFFLINE":
        child.close()


@pytest.mark.parametrize("file", ["", "/pytorch_model.bin"])
def test_a_cache_without_the_file_is_not_a_repository_without_it(
    hub: Hub, child: Child, tmp_path: Path, file: str
) -> None:
    hub.repositories["someone/pair"] = Repository({OLD: vocos_pair()})
    options = {"cache_dir": tmp_path, "allow_unverified": True}
    fetched(child, "someone/pair", ["config.yaml"], tmp_path)
    answer = child.load(f"hf://someone/pair@{OLD}{file}", **options, local_files_only=True)
    failed(answer, "DownloadError", r" is (not )?in the cache, which has config\.yaml; load it once with the network")
    assert answer["reason"] == "offline"


def test_a_recorded_revision_is_said(hub: Hub, child: Child, tmp_path: Path) -> None:
    hub.repositories["someone/mine"] = Repository({OLD: {"voc.safetensors": melvoc_file()}})
    assert child.load("hf://someone/mine", cache_dir=tmp_path)["log"] == []
    (said,) = child.load("hf://someone/mine", cache_dir=tmp_path)["log"]
    assert re.fullmatch(rf"hf://someone/mine: main is {OLD}, as recorded in .*main\.commit", said)


# One file of a repository


def test_a_file_of_a_repository(hub: Hub, child: Child, tmp_path: Path) -> None:
    other = checkpoints.to_bytes(describe(VOCODERS["bigvgan_v1_tiny"]))
    files = {"a.safetensors": melvoc_file(), "more/b.safetensors": other, "readme.md": b""}
    hub.repositories["someone/two"] = Repository({OLD: files, NEW: {}})
    for name in (f"hf://someone/two@{OLD}/more/b.safetensors", f"hf://someone/two@{OLD[:7]}/more/b.safetensors"):
        assert child.load(name, cache_dir=tmp_path).get("name") == "bigvgan_v1_tiny"
    answer = child.load(f"hf://someone/two@{OLD}/a.safetensors", cache_dir=tmp_path)
    assert answer.get("name") == "bigvgan_resblock2_snake_tiny"
    assert len(kept(tmp_path)) == 2
    answer = child.load(f"hf://someone/two@{OLD}/c.safetensors", cache_dir=tmp_path)
    failed(answer, "DownloadError", rf"@{OLD[:12]} has no file 'c\.safetensors'; it has a\.safetensors, more/b\.safet")
    answer = child.load(f"hf://someone/two@{OLD}/readme.md", cache_dir=tmp_path, allow_unverified=True)
    failed(answer, "DownloadError", r"has neither .* with its configuration beside readme\.md; it has")


@pytest.mark.parametrize("inside", ["", "deep/er/"])
def test_published_weights_of_any_name_with_their_configuration_beside_them(
    hub: Hub, child: Child, tmp_path: Path, inside: str
) -> None:
    pair = hifigan_pair()
    files = {f"{inside}weights-5.pth": pair["generator_v2"], f"{inside}config.json": pair["config.json"]}
    hub.repositories["someone/pair"] = Repository({OLD: files})
    name = f"hf://someone/pair/{inside}weights-5.pth"
    answer = child.load(name, cache_dir=tmp_path)
    failed(answer, "DownloadError", rf"{inside}weights-5\.pth with {inside}config\.json, which cannot be verified")
    answer = child.load(name, cache_dir=tmp_path, allow_unverified=True)
    assert answer.get("name") == "pair", answer
    failed(child.load(name, cache_dir=tmp_path), "DownloadError", "which cannot be verified")


@pytest.mark.parametrize(
    "name",
    ["hf://", "hf://one", "hf://a/b@", "hf://a/../b", "hf://../b", "hf://a/b/../c", "hf://a/b/", "hf://a/b@main/c/.."],
)
def test_what_is_no_repository(child: Child, name: str) -> None:
    failed(child.load(name), "DownloadError", "is not a repository; write hf://owner/repo")


# The oldest client


@pytest.fixture(scope="module")
def oldest_client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """huggingface_hub 0.25.2 in a folder of its own, which goes before the environment's packages."""
    folder = tmp_path_factory.mktemp("hub025")
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder)]
    packages = ["huggingface_hub==0.25.2", "requests", "urllib3", "idna", "certifi", "charset_normalizer"]
    done = subprocess.run([*install, *packages], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"needs huggingface_hub 0.25.2 from the package index: {done.stderr.strip().splitlines()[-1]}")
    return folder


@pytest.mark.slow
def test_the_oldest_client(oldest_client: Path, tmp_path: Path) -> None:
    with Hub(published_repositories()) as hub:
        child = Child(hub.endpoint, tmp_path, PYTHONPATH=str(oldest_client))
        hub.cut_after = len(FILES[NAME]) // 2
        failed(child.load(NAME), "DownloadError", "could not be downloaded")
        hub.cut_after = None
        first = child.load(NAME)
        assert first.get("digest"), first
        assert first["client"] == "0.25.2"
        hub.requests.clear()
        assert child.load(NAME, local_files_only=True)["digest"] == first["digest"]
        assert hub.requests == []
        files = hub.repositories[f"nvidia/{UNSURE}"].commits[OLD]
        del files["bigvgan_generator.pt"]
        failed(child.load(UNSURE, allow_unverified=True), "DownloadError", "there is no such file or revision")
        failed(child.load("hf://some/body"), "DownloadError", "does not exist or needs a token")
        hub.repositories["someone/mine"] = Repository({OLD: {"v.safetensors": melvoc_file()}})
        assert child.load("hf://someone/mine").get("digest")
        hub.repositories["someone/pair"] = Repository({OLD: vocos_pair()})
        assert child.load("hf://someone/pair", allow_unverified=True).get("digest")
        with contextlib.suppress(AssertionError):
            child.close()
    offline = Child(hub.endpoint, tmp_path, PYTHONPATH=str(oldest_client), HF_HUB_OFFLINE="1")
    assert offline.load(NAME)["digest"] == first["digest"]
    failed(offline.load(UNSURE, allow_unverified=True), "DownloadError", "the network is off")
    offline.close()
