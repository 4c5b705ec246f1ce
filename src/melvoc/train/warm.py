"""Starting from existing weights."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from melvoc.architecture import NetworkConfig
from melvoc.errors import CheckpointError, MissingCheckpointError, OptionError, about
from melvoc.loading import download, is_path
from melvoc.registry import VOCODERS
from melvoc.spectrogram.spec import MelSpec
from melvoc.storage import container
from melvoc.storage.conversion import convert
from melvoc.storage.pair import find_weights, is_published, melvoc_file
from melvoc.storage.weights import find, read_tensors
from melvoc.train.config import ResolvedConfig, TrainConfig
from melvoc.train.folder import FORMAT
from melvoc.train.recipes import trained_architecture
from melvoc.train.state import TrainState


@dataclass(frozen=True, kw_only=True)
class WarmGenerator:
    """A generator to start from.

    Attributes:
        spec: of its mels.
        generator: its configuration.
        tensors: its folded weights.
        source: where it comes from.
        published: whether that is a published file, whose weights may be in halves.
    """

    spec: MelSpec
    generator: NetworkConfig
    tensors: dict[str, Tensor]
    source: str
    published: bool = False


@dataclass(frozen=True, kw_only=True)
class WarmStart:
    """What a run starts from instead of random weights.

    Attributes:
        generator: if any.
        judges: the content of a file of discriminators, if any.
        source: of the discriminators.
    """

    generator: WarmGenerator | None
    judges: Mapping[str, Any] | None
    source: str

    @property
    def rate(self) -> float | None:
        """The learning rate that was reached, if both sides' optimizers come along."""
        if not self.generator or not self.judges or not {"optim_g", "optim_d"} <= self.judges.keys():
            return None
        with about(self.source):
            return float(_groups(self.judges["optim_g"], self.source)[0]["lr"])

    def begin(self, state: TrainState, config: ResolvedConfig) -> None:
        """Replace the random weights, and the optimizers' states where the recipe continues them.

        Raises:
            CheckpointError: they are those of other networks.
        """
        if self.generator:
            with about(self.generator.source):
                state.generator.load_folded(self.generator.tensors, source=self.generator.source)
            state.average.load(state.generator.folded())
        if self.judges is None:
            return
        with about(self.source):
            state.discriminators.load_published(self.judges, source=self.source)
            if self.generator and self.rate is not None and config.recipe.continues:
                self._continue(state, self.generator, self.judges)

    def _continue(self, state: TrainState, generator: WarmGenerator, judges: Mapping[str, Any]) -> None:
        """Take up the optimizers, and the halves of the generator's weights, whose moments they hold."""
        if generator.published:
            content = read_tensors(find_weights(generator.source))
            state.generator.load_halves(find(content, tuple(generator.tensors), None, generator.source).tensors)
        _take_moments(state.generator_optimizer, list(state.generator.parameters()), judges["optim_g"], self.source)
        kinds = sorted(state.discriminators.named_children(), key=lambda entry: entry[0] == "mpd")
        published = [parameter for _, kind in kinds for parameter in kind.parameters()]  # the periods' last
        _take_moments(state.discriminator_optimizer, published, judges["optim_d"], self.source)


def read_start(config: TrainConfig) -> WarmStart | None:
    """What a configuration starts from; None: random weights.

    Raises:
        CheckpointError: a file that cannot be read, or is of another kind.
    """
    if config.warm_start is None and config.warm_discriminators is None:
        return None
    path, judges = config.warm_discriminators, None
    source = "" if path is None else os.fspath(path)
    if path is not None:
        with about(source):
            judges = read_discriminators(path)
    generator = None if config.warm_start is None else read_generator(config.warm_start)
    return WarmStart(generator=generator, judges=judges, source=source)


def read_generator(path: str | os.PathLike[str]) -> WarmGenerator:
    """A melvoc file of an architecture that melvoc trains, a published generator with its configuration beside it, the
    running mean in a checkpoint of another run, or a vocoder by its name, which is downloaded.

    Raises:
        CheckpointError: any other kind of file.
        DownloadError: as `melvoc.load`.
    """
    source = os.fsdecode(path)
    if not is_path(path) and (source in VOCODERS.table() or source.startswith("hf://")):
        source = os.fsdecode(download(source))
    with about(source):
        content = read_tensors(source) if source.endswith(".pt") else {}
        if content.get("format") == FORMAT:
            config = content["config"]
            spec = MelSpec.from_dict(config["spec"])
            return _warm(config.get("architecture"), config["generator"], spec, content["average"], source, False)
        try:
            published = is_published(source)
            read = convert(source) if published else container.read(melvoc_file(source))
        except MissingCheckpointError as error:
            raise MissingCheckpointError(
                f"{error} (a warm start is a melvoc file, a published generator with its configuration beside it, or a "
                "checkpoint of a run, RUN/checkpoints/step-N.pt)"
            ) from error
        return _warm(read.architecture, read.config, read.spec, read.tensors, source, published)


def _warm(
    architecture: str | None,
    generator: dict[str, Any],
    spec: MelSpec,
    tensors: dict[str, Tensor],
    source: str,
    published: bool,
) -> WarmGenerator:
    try:
        record, _ = trained_architecture(architecture, None)
    except OptionError as error:
        raise CheckpointError(f"{source}: {error}") from error
    network = record.config.from_dict(generator)
    return WarmGenerator(spec=spec, generator=network, tensors=tensors, source=source, published=published)


def read_discriminators(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What `Discriminators.load_published` takes: a published `do_*` file, `discriminators.pt`, or a run's checkpoint.

    Raises:
        CheckpointError: no such file, a damaged one, or one of another kind.
    """
    content = read_tensors(path)
    weights = content["config"]["weights"] if content.get("format") == FORMAT else {}
    if weights and not (weights.get("adversarial") or weights.get("feature")):
        raise CheckpointError(
            f"{os.fspath(path)}: no loss of its run asked for discriminators, so that they have learnt nothing; give "
            "another file, or omit it"
        )
    inner = content.get("discriminators", content)
    return dict(inner) if isinstance(inner, dict) else {}


def _take_moments(optimizer: Optimizer, parameters: list[nn.Parameter], stored: Mapping[str, Any], source: str) -> None:
    """Take up an optimizer's state from a file that numbers the parameters in this order."""
    numbers = [number for group in _groups(stored, source) for number in group["params"]]
    moments = [stored["state"].get(number, {}).get("exp_avg") for number in numbers]
    if [None if mean is None else mean.shape for mean in moments] != [parameter.shape for parameter in parameters]:
        raise CheckpointError(
            f"{source}: its optimizers are those of other networks; omit the profile, which starts with new ones"
        )
    own = {id(parameter): number for number, parameter in enumerate(optimizer.param_groups[0]["params"])}
    places = [own[id(parameter)] for parameter in parameters]
    state = {place: stored["state"][number] for place, number in zip(places, numbers, strict=True)}
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _groups(stored: Any, source: str) -> list[Mapping[str, Any]]:
    """The groups of an optimizer's stored state."""
    groups = stored.get("param_groups") if isinstance(stored, Mapping) else None
    if not groups or not isinstance(stored.get("state"), Mapping):
        raise CheckpointError(f"{source}: its optimizers have no state; omit the profile, which starts with new ones")
    return list(groups)
