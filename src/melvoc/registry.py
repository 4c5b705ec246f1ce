"""Names: what melvoc's own code declares, and what other packages add as entry points.

A table holds the code's names and the installed entry points; none is imported before its name is requested. A plugin
that cannot be imported, or whose name is contested, is an error when its name is requested, and never affects the
others.
"""

from __future__ import annotations

import copyreg
import importlib
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from melvoc import architectures, metrics
from melvoc.architecture import Architecture, Pin
from melvoc.errors import CheckpointError, PluginError, UnknownVocoderError, did_you_mean, kind_of, quoted
from melvoc.host import warn
from melvoc.metrics import Metric

R = TypeVar("R", Architecture, Metric)

OWN = "melvoc"
GRIFFINLIM = "griffinlim"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What one distribution declares under a name.

    Attributes:
        name: of a vocoder, an architecture, ...
        value: where the object is, `package.module:object`.
        distribution: the package's name; "melvoc" for melvoc's own code.
        version: of the distribution.
        entry: the entry point; None for melvoc's own code.
    """

    name: str
    value: str = ""
    distribution: str = OWN
    version: str = ""
    entry: EntryPoint | None = None


def build_table(entries: Iterable[EntryPoint], own: Iterable[str]) -> dict[str, list[Claim]]:
    """Every name with all its claims, melvoc's own first. Pure: entry points and names in, table out."""
    table = {name: [Claim(name=name)] for name in own}
    for entry in entries:
        distribution = (entry.dist.name if entry.dist else None) or "an unknown distribution"
        if distribution == OWN:  # melvoc's own names come from its code, whatever its metadata says
            continue
        version = (entry.dist.version if entry.dist else None) or ""
        known = table.setdefault(entry.name, [])
        claim = Claim(name=entry.name, value=entry.value, distribution=distribution, version=version, entry=entry)
        if (distribution, entry.value) not in [(other.distribution, other.value) for other in known]:
            known.append(claim)  # a distribution found twice on the path is one claim
    return table


@dataclass(frozen=True, kw_only=True)
class Registry:
    """One kind of named thing.

    Attributes:
        group: of the entry points.
        kind: its name in messages ("vocoder").
        contract: what an entry point's object must be, in words.
        own: melvoc's own names, the best first.
    """

    group: str
    kind: str
    contract: str
    own: Callable[[], Iterable[str]]

    def table(self) -> dict[str, list[Claim]]:
        """The table of what is currently installed."""
        return build_table(entry_points(group=self.group), self.own())

    def names(self) -> list[str]:
        """Every name, melvoc's own first."""
        own = list(self.own())
        return own + sorted(set(self.table()) - set(own))

    def single(self, name: str, claims: list[Claim]) -> Claim:
        """The claim that counts: melvoc's own (with a warning if there are others), or the only one.

        Raises:
            PluginError: two distributions claim the name, and neither is melvoc.
        """
        if claims[0].distribution != OWN and len(claims) > 1:
            owners = " and ".join(f"{claim.distribution} ({claim.value})" for claim in claims)
            raise PluginError(f"{self.kind} {name!r} is claimed by {owners}; uninstall one of them")
        if len(claims) > 1:
            others = ", ".join(claim.distribution for claim in claims[1:])
            warn(
                f"{others} claims the name {name!r}, which is melvoc's own; melvoc's is loaded. Ask its author to "
                "choose another name"
            )
        return claims[0]

    def load(self, claim: Claim) -> object:
        """Import what another package's claim names.

        Raises:
            PluginError: the import failed, whatever the reason.
        """
        assert claim.entry is not None  # melvoc's own are not loaded through entry points
        try:
            return claim.entry.load()
        except (Exception, SystemExit) as error:  # a plugin that exits must not end the application
            raise PluginError(
                f"{self.kind} {claim.name!r} of {claim.distribution} {claim.version} cannot be imported from "
                f"{claim.value!r} ({type(error).__name__}: {error}); repair or uninstall {claim.distribution}"
            ) from error

    def record(self, claim: Claim, kind: type[R]) -> R:
        """The record that another package's claim names.

        Raises:
            PluginError: the import failed, or the object is none of that kind and name.
        """
        found = self.load(claim)
        if not isinstance(found, kind):
            raise self.wrong(claim, f"is {kind_of(found)}")
        if found.name != claim.name:
            raise self.wrong(claim, f"has the name {found.name!r}")
        return found

    def wrong(self, claim: Claim, what: str, contract: str | None = None) -> PluginError:
        """The error for an object that breaks the contract, or part of it."""
        return PluginError(
            f"{self.kind} {claim.name!r}: {claim.value!r} of {claim.distribution} {what}, but the contract is "
            f"{contract or self.contract}"
        )


def own_architectures() -> list[Architecture]:
    """The records in `melvoc.architectures`: one per module, discovered."""
    return [_own_architecture(name) for name in _own_names()]


def pins() -> dict[str, tuple[Architecture, Pin]]:
    """melvoc's own published checkpoints by name, each with its architecture."""
    return {pin.name: (record, pin) for record in own_architectures() for pin in record.pins}


def known_pin(name: str) -> tuple[Architecture, Pin] | None:
    """One of melvoc's own published checkpoints, by its name or by its repository's `owner/name`."""
    known = pins()
    return known.get(name) or next((entry for entry in known.values() if entry[1].repo == name), None)


def known_configuration(name: str, file: str) -> Mapping[str, Any] | None:
    """A configuration that stands in published code, by its name, for the weights in a file of that name.

    Raises:
        OptionError: the file's name does not say what the configuration leaves open.
    """
    makers = (record.configurations.get(name) for record in own_architectures())
    return next((make(file) for make in makers if make), None)


VOCODERS = Registry(
    group="melvoc.vocoders",
    kind="vocoder",
    contract="factory(name, *, device, dtype, **options)",
    own=lambda: [*pins(), GRIFFINLIM],
)
ARCHITECTURES = Registry(
    group="melvoc.architectures",
    kind="architecture",
    contract="a melvoc.architecture.Architecture whose name is the entry point's",
    own=lambda: _own_names(),
)
METRICS = Registry(
    group="melvoc.metrics",
    kind="metric",
    contract="a melvoc.metrics.Metric whose name is the entry point's",
    own=lambda: [module.name for module in pkgutil.iter_modules(metrics.__path__)],
)


def architecture(name: str, source: str = "this checkpoint") -> Architecture:
    """The record of an architecture.

    Args:
        name: as a melvoc file has it.
        source: the file, for the message.

    Raises:
        CheckpointError: an architecture that nothing declares.
        PluginError: one whose package cannot be imported or breaks the contract.
    """
    if name in _own_names():
        return _own_architecture(name)
    table = ARCHITECTURES.table()
    if name not in table:
        raise CheckpointError(
            f"{source}: architecture {quoted(name)}, but the known ones are {', '.join(table)} and {GRIFFINLIM}; "
            "update melvoc, or install the package that declares it"
        )
    return ARCHITECTURES.record(ARCHITECTURES.single(name, table[name]), Architecture)


def all_architectures() -> Iterator[Architecture]:
    """melvoc's own records, then those of other packages; what cannot be imported is left out with a warning."""
    yield from own_architectures()
    for name, claims in ARCHITECTURES.table().items():
        if claims[0].distribution != OWN:
            try:
                yield ARCHITECTURES.record(ARCHITECTURES.single(name, claims), Architecture)
            except PluginError as error:
                warn(f"{error} (it is left out)")


def all_metrics() -> Iterator[Metric]:
    """melvoc's own metrics, then those of other packages; what cannot be imported is left out with a warning."""
    for name in METRICS.own():
        yield importlib.import_module(f"{metrics.__name__}.{name}").METRIC
    for name, claims in METRICS.table().items():
        if claims[0].distribution != OWN:
            try:
                yield METRICS.record(METRICS.single(name, claims), Metric)
            except PluginError as error:
                warn(f"{error} (it is left out)")


def claimed(name: str) -> Claim:
    """Who declares a registered name, or the repository of a published checkpoint, whose name it then is.

    Raises:
        UnknownVocoderError: nobody.
        PluginError: two packages, and neither is melvoc.
    """
    table = VOCODERS.table()
    if name not in table:
        if not (known := known_pin(name)):
            raise unknown(name, table)
        name = known[1].name
    return VOCODERS.single(name, table[name])


def unknown(name: str, table: Mapping[str, object]) -> UnknownVocoderError:
    """The error for a vocoder that nothing registers, with the closest names, the best vocoder's first."""
    hint = did_you_mean(name, table, 3) or "melvoc.list_vocoders() lists the names."
    return UnknownVocoderError(
        f"no vocoder {name!r} is registered; {hint} A file is given by its path (ending in .safetensors), a "
        "repository as hf://owner/repo"
    )


copyreg.pickle(Architecture, lambda record: (architecture, (record.name,)))  # a vocoder takes it along by its name


def _own_names() -> list[str]:
    return [module.name for module in pkgutil.iter_modules(architectures.__path__)]


def _own_architecture(name: str) -> Architecture:
    record: Architecture = importlib.import_module(f"{architectures.__name__}.{name}").ARCHITECTURE
    return record
