"""The state of training, one step of it, and saving to and loading from a checkpoint."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from melvoc.errors import MelvocError
from melvoc.host import drawing
from melvoc.nn.forks import ForkLock
from melvoc.train.augment import rotated, rotations
from melvoc.train.config import ResolvedConfig
from melvoc.train.data import Batch, seed_of
from melvoc.train.discriminators import Discriminators, divisors
from melvoc.train.distributed import World
from melvoc.train.ema import Average, TrainableGenerator
from melvoc.train.losses import Term, discriminator_loss, heard_terms, judged_terms, refined_terms
from melvoc.train.precision import compute_in_bfloat16, halved
from melvoc.train.refinement import RefinedSound
from melvoc.train.report import Stage


class DivergedError(MelvocError):
    """A loss or a gradient is NaN or infinite; it has not reached the weights."""


@dataclass
class TrainState:
    """Networks, optimizers and the number of steps made.

    Attributes:
        generator: as it is trained.
        average: its running mean.
        discriminators: every kind that judges.
        generator_optimizer: AdamW.
        discriminator_optimizer: AdamW.
        step: steps made so far.
        lock: held where the mean and the steps change, for who reads them in another thread.
    """

    generator: TrainableGenerator
    average: Average
    discriminators: Discriminators
    generator_optimizer: torch.optim.Optimizer
    discriminator_optimizer: torch.optim.Optimizer
    step: int = 0
    lock: ForkLock = field(default_factory=ForkLock, repr=False)

    @property
    def size(self) -> int:
        """Bytes of a checkpoint, about: the weights, and AdamW's two moments."""
        modules = (self.generator, self.discriminators)
        return 3 * sum(parameter.numel() * 4 for module in modules for parameter in module.parameters())

    @property
    def device(self) -> torch.device:
        """Where it is trained."""
        return next(iter(self.average.tensors.values())).device

    @classmethod
    def new(cls, config: ResolvedConfig, device: torch.device) -> TrainState:
        """Random weights, the same for the same seed; the caller's random state is left alone."""
        with drawing(device, config.seed):
            network = TrainableGenerator(config.record, config.generator).to(device)
            judges = Discriminators(
                config.discriminators, divisor=divisors(config.preset), sample_rate=config.spec.sample_rate
            )
        discriminators = judges.to(device)
        return cls(
            generator=network,
            average=Average(network, config.ema_decay),
            discriminators=discriminators,
            generator_optimizer=_adamw(network, config, device),
            discriminator_optimizer=_adamw(discriminators, config, device),
        )

    def to_dict(self) -> dict[str, Any]:
        """Tensors and plain values, for `torch.save`."""
        return {
            "step": self.step,
            "generator": self.generator.state_dict(),
            "average": self.average.tensors,
            "discriminators": self.discriminators.published_state(),
            "generator_optimizer": self.generator_optimizer.state_dict(),
            "discriminator_optimizer": self.discriminator_optimizer.state_dict(),
        }

    def load(self, values: dict[str, Any], *, source: str) -> None:
        """Restore all of `to_dict`'s values."""
        self.generator.load_state_dict(values["generator"])
        self.average.load(values["average"])
        self.discriminators.load_published(values["discriminators"], source=source)
        self.generator_optimizer.load_state_dict(values["generator_optimizer"])
        self.discriminator_optimizer.load_state_dict(values["discriminator_optimizer"])
        self.step = int(values["step"])


class Stepper:
    """Makes steps: the same code in every phase, and nothing computed that is not used.

    The discriminators see real and generated sound as one batch. In the generator's turn they are frozen: their
    parameters get no gradients, and the real sound's features are computed without a graph.

    Args:
        state: what is trained.
        config: of the run.
        world: the processes.

    Attributes:
        judged: the generator's losses that compare judgements.
        heard: those that compare waves.
        heard_refined: those that compare waves after a round of refinement.
    """

    def __init__(self, state: TrainState, config: ResolvedConfig, world: World) -> None:
        self.state, self.config, self.world = state, config, world
        self.judged = judged_terms(config.weights)
        self.heard = heard_terms(config.weights, config.spec)
        self.heard_refined = refined_terms(config.weights, config.spec)
        self._refined = RefinedSound(config.spec)
        self._half = halved(config, world.device)
        if self._half and config.recipe.autocast:
            for layer in config.recipe.autocast(state.generator.network):
                compute_in_bfloat16(layer, world.device)
        self._draws = _draws(state.generator.network)
        for module in (state.generator, state.discriminators):
            world.share(module)

    @property
    def stage(self) -> Stage:
        """What learns from what in the next step."""
        return stage_of(self.config, self.state.step)

    def __call__(self, batch: Batch, rates: tuple[float, float]) -> dict[str, float]:
        """One step.

        Args:
            batch: of this process.
            rates: the generator's and the discriminators' learning rate.

        Returns:
            The losses by name, unweighted, and the norms of the gradients before clipping.

        Raises:
            DivergedError: naming the loss; this step has changed neither the generator nor its mean, though it may have
                changed what judges it.
        """
        if not self._draws:
            return self._step(batch, rates)
        seed = seed_of(self.config.seed, "step", self.state.step, self.world.rank)
        with drawing(self.world.device, seed):
            return self._step(batch, rates)

    def _step(self, batch: Batch, rates: tuple[float, float]) -> dict[str, float]:
        state = self.state
        alone, warming = self.stage == "heard", self.stage == "warm-up"
        state.generator_optimizer.param_groups[0]["lr"], state.discriminator_optimizer.param_groups[0]["lr"] = rates
        report: dict[str, float] = {}
        with torch.set_grad_enabled(not warming):
            generated = state.generator(batch.mel)
        generated = generated.float()
        judged = None if alone else self._rotated(batch.wave, generated)
        if judged:
            report |= self._discriminators_turn(*judged)
        if not warming:
            report |= self._generators_turn(batch, generated, judged)
        with state.lock:
            if not warming:
                state.average.update(state.generator, state.step)
            state.step += 1
        return report

    def _rotated(self, real: Tensor, generated: Tensor) -> tuple[Tensor, Tensor]:
        """What the discriminators get: both sounds, with the same random phases if the configuration says so."""
        config, world = self.config, self.world
        if not config.phase_rotation:
            return real, generated
        first = (self.state.step * world.size + world.rank) * config.batch_size  # as the segments were drawn
        seeds = [seed_of(config.seed, "phases", first + row) for row in range(len(real))]
        drawn = [rotations(config.phase_rotation, torch.Generator().manual_seed(seed)) for seed in seeds]
        phases = torch.stack(drawn).to(real.device)
        return rotated(real, phases), rotated(generated, phases)

    def _discriminators_turn(self, real: Tensor, generated: Tensor) -> dict[str, float]:
        state = self.state
        state.discriminators.requires_grad_(True)
        with self._autocast():
            judgements = state.discriminators(torch.cat([real, generated.detach()]))
        loss = discriminator_loss(judgements)
        state.discriminator_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.world.average_gradients(state.discriminators)
        kinds = list(state.discriminators.children())  # each is clipped by itself, as published
        return self._update("discriminator", {"discriminator": loss}, kinds, state.discriminator_optimizer)

    def _generators_turn(
        self, batch: Batch, generated: Tensor, judged: tuple[Tensor, Tensor] | None
    ) -> dict[str, float]:
        state, real, terms = self.state, batch.wave, list[tuple[Term, Tensor]]()
        if judged:
            state.discriminators.requires_grad_(False)
            with self._autocast():
                judgements = state.discriminators(judged[1])
                with torch.no_grad():
                    targets = state.discriminators(judged[0]) if self.config.weights.feature else []
            terms += [(term, term.loss(judgements, targets)) for term in self.judged]
        terms += [(term, term.loss(generated, real)) for term in self.heard]
        if self.heard_refined:
            sounds = self._refined(batch.mel, generated, real)
            terms += [(term, term.loss(*sounds)) for term in self.heard_refined]
        total = torch.stack([term.weight * loss for term, loss in terms]).sum()
        state.generator_optimizer.zero_grad(set_to_none=True)
        total.backward()
        losses = {term.name: loss for term, loss in terms}
        self.world.average_gradients(state.generator)
        return self._update("generator", losses, [state.generator], state.generator_optimizer)

    def _update(
        self, side: str, losses: dict[str, Tensor], parts: list[nn.Module], optimizer: torch.optim.Optimizer
    ) -> dict[str, float]:
        """Guard, clip and update one side; the only place that waits for a GPU."""
        most = self.config.clip_gradients
        norm = torch.stack([nn.utils.clip_grad_norm_(part.parameters(), most) for part in parts]).norm()
        stacked = torch.stack([loss.detach().float() for loss in losses.values()])
        values = torch.cat([self.world.mean(stacked), norm.detach().float()[None]])
        report = dict(zip([*losses, f"{side}_gradient"], values.tolist(), strict=True))
        if bad := [name for name, value in report.items() if not abs(value) < float("inf")]:
            optimizer.zero_grad(set_to_none=True)
            named = " and ".join(f"{name} is {report[name]}" for name in bad)
            raise DivergedError(f"step {self.state.step + 1}: {named}; no weight of the {side} was changed")
        optimizer.step()
        return report

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.world.device.type, dtype=torch.bfloat16, enabled=self._half)


def _draws(network: nn.Module) -> bool:
    """Whether a network may draw random numbers as it runs: none of melvoc's own does."""
    others = [part for part in network.modules() if type(part).__module__.partition(".")[0] not in ("melvoc", "torch")]
    return bool(others) or any("Dropout" in type(part).__name__ for part in network.modules())


def stage_of(config: ResolvedConfig, step: int) -> Stage:
    """What learns from what in a step, as many having been made before it."""
    judging = step - config.mel_only_steps
    if judging < 0 or not config.weights.judges:
        return "heard"
    if judging < config.discriminator_warmup:
        return "warm-up"
    return "heard" if judging % config.judge_every else "judged"


def _adamw(module: nn.Module, config: ResolvedConfig, device: torch.device) -> torch.optim.Optimizer:
    parameters: Iterable[nn.Parameter] = module.parameters()
    return torch.optim.AdamW(
        parameters,
        lr=config.learning_rate,
        betas=config.betas,
        weight_decay=config.weight_decay,
        fused=device.type in ("cpu", "cuda"),  # several times faster than one tensor after another
    )
