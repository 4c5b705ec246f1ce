"""What melvoc knows about an architecture: one record, kept in the architecture's own file.

melvoc's own are the modules of `melvoc.architectures`; other packages declare theirs as entry points of the group
`melvoc.architectures`, `name = "package.module:RECORD"`. Everything a vocoder of an architecture can do (load, save,
convert, stream, train) follows from its record.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from melvoc.errors import OptionError, did_you_mean, quoted
from melvoc.recipe import Recipe
from melvoc.spectrogram.spec import MelSpec

LARGEST = 1 << 20  # of any number in a network's configuration
LONGEST = 64  # entries of any list in it
ADDED = {"added": True}  # the metadata of a configuration's field that the architecture's first release did not have


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Hyperparameters of a network; each architecture subclasses it.

    Fields are `int`, `bool`, `str` (or a `Literal` of strings) and tuples of them, and are type-checked when the
    configuration is made: lists become tuples of at most 64 entries, and every whole number is from 1 to 2^20, because
    a configuration may stand in a stranger's file. A subclass checks whatever else must hold in `__post_init__`,
    raising `OptionError`.

    Attributes:
        n_mels: mel bands of the input.
        hop_length: samples of sound per mel frame; defined by the subclass, as a field or a property.
        channels: of the sound.
        sample_rate: of the sound, if it is not the mel's.
        frame_values: values per mel frame of the largest signal inside, which determines the block length; 0 if
            unknown.
        spec: the only mel that it takes, where its arithmetic knows more of it than bands and hop; else None.

    Raises:
        OptionError: a value of the wrong type or out of range.
    """

    n_mels: int
    channels: ClassVar[int] = 1
    sample_rate: ClassVar[int | None] = None

    if TYPE_CHECKING:  # fields or properties of the subclass

        @property
        def hop_length(self) -> int:
            """Samples of sound per mel frame."""

        @property
        def frame_values(self) -> int:
            """Values per mel frame of the largest signal inside."""

        @property
        def spec(self) -> MelSpec | None:
            """The only mel that it takes, if there is one."""

    else:
        frame_values = 0
        spec = None

    def __post_init__(self) -> None:
        for entry in dataclasses.fields(self):
            object.__setattr__(self, entry.name, _typed(entry.name, getattr(self, entry.name), _named(entry.type)))

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values; `from_dict` restores the configuration.

        A field that a release added (`metadata=ADDED`) is left out at its default: older releases can read that.
        """
        values = {entry.name: (entry, getattr(self, entry.name)) for entry in dataclasses.fields(self)}
        return {
            name: _listed(value)
            for name, (entry, value) in values.items()
            if entry.metadata != ADDED or value != entry.default
        }

    def keeps_time(self, spec: MelSpec) -> bool:
        """Whether a frame of that mel lasts as long as the sound that is made of it."""
        return self.hop_length * spec.sample_rate == spec.hop_length * (self.sample_rate or spec.sample_rate)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """From `to_dict`'s values.

        Raises:
            OptionError: an unknown field, a missing one, or a value that is not allowed.
        """
        known = {entry.name: entry for entry in dataclasses.fields(cls)}
        for name in values:
            if name not in known:
                hint = did_you_mean(name, known, 1) or f"the fields are {', '.join(known)}"
                raise OptionError(f"{cls.__name__} has no field {quoted(name)}; {hint}")
        needed = [name for name, entry in known.items() if entry.default is dataclasses.MISSING]
        if missing := [name for name in needed if name not in values]:
            raise OptionError(f"{cls.__name__} needs {', '.join(missing)}; add what is missing")
        return cls(**values)


@dataclass(frozen=True, kw_only=True, eq=False)
class Layout:
    """One form in which checkpoints of an architecture were published.

    Attributes:
        title: its name in messages ("HiFi-GAN's config.json").
        recognises: whether a configuration, or a section of one, read into a dict, is of this layout.
        config: reads the network's configuration from such a dict; raises `OptionError` if it is invalid.
        spec: reads the mel's specification from it; raises `SpecError`.
        not_weights: pattern of tensor names in such a file that are not the network's weights, and are dropped.
        renames: patterns in such a file's tensor names, and what the network has in their place.
        adapt: what remains to be done to the renamed and folded tensors; raises `OptionError`.
        files: in a repository on the Hub: a pattern for the weights' name, and the configuration's name.
    """

    title: str
    recognises: Callable[[Mapping[str, Any]], bool]
    config: Callable[[Mapping[str, Any]], NetworkConfig]
    spec: Callable[[Mapping[str, Any]], MelSpec]
    not_weights: re.Pattern[str] | None = None
    renames: tuple[tuple[str, str], ...] = ()
    adapt: Callable[[dict[str, Tensor], NetworkConfig], dict[str, Tensor]] | None = None
    files: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        for pattern, _ in self.files:
            try:
                re.compile(pattern)
            except re.error as error:
                raise OptionError(f"files has {quoted(pattern)}, which is no regular expression ({error})") from error

    def takes(self, values: Mapping[str, Any]) -> bool:
        """Whether a configuration, or a section of one, is of this layout; not where that cannot be told."""
        try:
            return bool(self.recognises(values))
        except Exception:  # of another package's; the configuration is none that it knows
            return False


@dataclass(frozen=True, kw_only=True)
class Pin:
    """One published checkpoint: where it is, what it is, and how sure that is.

    An entry with a sha256 is pinned: the file must match it. One without is loaded only if the caller allows it. The
    configuration is stored here too, so that the network never depends on a second file from the Hub.

    Attributes:
        name: as `melvoc.load` takes it.
        repo: on the Hugging Face Hub.
        filename: of the weights there.
        revision: the pinned commit; None if no full hash is known.
        bytes: size of the file; None if unknown.
        sha256: of the file; None if unknown.
        sources: independent places that show the sha256.
        config: of the network.
        spec: the mel that it was trained on.
        parameters: number of weights after folding.
        licence: of the weights.
    """

    name: str
    repo: str
    filename: str
    revision: str | None
    bytes: int | None
    sha256: str | None
    sources: str = ""
    config: NetworkConfig = field(repr=False)
    spec: MelSpec = field(repr=False)
    parameters: int
    licence: str = "MIT"

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


@dataclass(frozen=True, kw_only=True, eq=False)
class Architecture:
    """All that melvoc knows about one architecture.

    Attributes:
        name: in melvoc files: the module's name for melvoc's own, the entry point's for other packages'.
        title: its name in messages.
        config: the class of its configuration.
        network: makes a network from a configuration: a module with `config` and, if it streams, `graph`, the network
            as an expression of nodes (`melvoc.nn.graph`). It maps `[B, n_mels, T]` to
            `[B, config.channels, T * config.hop_length]`.
        layouts: how its checkpoints were published, for `melvoc convert` and `hf://`.
        configurations: those that stand in published code, by the name that `melvoc convert --config` takes: each
            makes one of a layout, given the name of the weights' file; raises `OptionError`.
        check_name: checks a configuration against the name of the weights' file, where that says what the weights do
            not; raises `OptionError`. None: no name says anything.
        pins: published checkpoints that are loaded by name.
        float32: the layers that stay float32 when the rest is in half precision. None: it has no half form.
        cuda_dtype: what `dtype=None` means on CUDA; half precision only if measured to do no harm.
        recipe: how it is trained. None: melvoc does not train it.
        speed: of a configuration on a CPU: "slow", "medium" or "fast", as docs/performance.md defines them; None where
            it was not measured.
    """

    name: str
    title: str
    config: type[NetworkConfig]
    network: Callable[[Any], nn.Module]
    layouts: tuple[Layout, ...] = ()
    configurations: Mapping[str, Callable[[str], Mapping[str, Any]]] = field(default_factory=dict)
    check_name: Callable[[Any, str], None] | None = None
    pins: tuple[Pin, ...] = ()
    float32: Callable[[nn.Module], Iterable[nn.Module]] | None = None
    cuda_dtype: torch.dtype = torch.float32
    recipe: Recipe | None = None
    speed: Callable[[Any], str | None] = lambda config: None

    def __deepcopy__(self, memo: object) -> Self:
        return self  # a record: copies of a vocoder share it

    def empty(self, config: NetworkConfig) -> nn.Module:
        """A network without memory, on torch's meta device; `load_state_dict(..., assign=True)` gives it weights."""
        with torch.device("meta"), _Uninitialised():
            return self.network(config)


class _Uninitialised(TorchFunctionMode):
    """Leaves out torch.nn.init's functions: they draw numbers, and a meta tensor takes none, but not for free."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: tuple[type, ...],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        named = kwargs or {}
        drawn = getattr(function, "__module__", None) == "torch.nn.init"
        return named["tensor"] if drawn else function(*args, **named)


def _named(kind: Any) -> str:
    """A field's type as its annotation has it, whether annotations are kept as text or not."""
    return kind.__name__ if isinstance(kind, type) else str(kind).removeprefix("typing.")


def _typed(name: str, value: Any, kind: str) -> Any:
    """A JSON value as the field's type (lists become tuples).

    Raises:
        OptionError: it is of the wrong type; the message names the field.
    """
    if kind == "int":
        if type(value) is not int or value < 1:
            raise OptionError(f"{name}={quoted(value)}, but it is a whole number of at least 1")
        if value > LARGEST:
            raise OptionError(f"{name}={quoted(value)}, but no network has a number above {LARGEST}; lower it")
        return value
    if kind == "bool":
        if type(value) is not bool:
            raise OptionError(f"{name}={quoted(value)}, but it is true or false")
        return value
    if kind.startswith("tuple"):
        inner = kind[len("tuple[") : -len(", ...]")]
        if not isinstance(value, list | tuple) or not value:
            raise OptionError(f"{name}={quoted(value)}, but it is a list with at least one entry")
        if len(value) > LONGEST:
            raise OptionError(f"{name} has {len(value)} entries, but at most {LONGEST}; shorten it")
        return tuple(_typed(name, item, inner) for item in value)
    if not isinstance(value, str):
        raise OptionError(f"{name}={quoted(value)}, but it is text")
    return value


def _listed(value: Any) -> Any:
    return [_listed(item) for item in value] if isinstance(value, tuple) else value
