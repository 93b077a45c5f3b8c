"""What all our Lightning modules share: a step clock, log-spaced rows, many steps per call, and an end on divergence."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self

import numpy as np
import polars as pl
from lightning import LightningModule

from featscale.errors import require
from featscale.numerics.grids import log_steps
from featscale.training.execution import PLAIN, Execution
from featscale.training.march import Joined, March, OneByOne

# A loss this many times its first value is called diverged, before it overflows.
BLOW_UP = 1e6

Row = dict[str, float | int]


@dataclass(frozen=True)
class Divergence:
    """Where a seed left the track: its last finite logged step, the step where it was seen to be gone, and K there."""

    seed: int
    step: int
    t: float
    loss: float
    K: float | None


class CurveModule(LightningModule):
    """A Lightning module that makes `T` steps on its own clock and keeps a curve of log-spaced rows.

    Lightning's own step counter counts optimiser calls of one kind only and its loop costs a call a step, so `step` here is the number of
    updates made and `training_step` makes a range of them. A subclass makes steps in `advance` and measures in `observe`; both must depend on
    (seed, step) and the state alone, and all state must be in `state_dict` or the optimisers. Where a range of steps is cut into calls of
    `advance` must change no bit of it: that is what makes a run resumable from any step.

    Several modules of one :meth:`shape` that stand at one step may be advanced side by side, when their class says in which entries of the
    science configuration they may differ (`stackable`), how many are faster so (:meth:`together`), and how (:meth:`join`).

    Arguments: T >= 1, steps of the run. eta > 0, flow time of one step. seeds, the seeds trained side by side. chunk, steps per call.
    rows_per_decade, rows of the curve in a decade of steps. execution, how steps are made.
    """

    # The dotted entries of the science configuration in which modules advanced together may differ ("seed", "model.gamma"); none: never.
    stackable: ClassVar[tuple[str, ...]] = ()
    # Whether steps can be made in another way than the plain one.
    executes: ClassVar[bool] = False

    def __init_subclass__(cls, **options: Any) -> None:
        """A class with an `advance` of its own is not joined by a `join` that it inherits, which knows nothing of it."""
        super().__init_subclass__(**options)
        if "advance" in vars(cls) and not {"join", "stackable"} & set(vars(cls)):
            cls.stackable = ()

    def __init__(
        self,
        T: int,
        eta: float,
        seeds: tuple[int, ...],
        chunk: int = 1000,
        rows_per_decade: int = 24,
        execution: Execution = PLAIN,
    ) -> None:
        super().__init__()
        if not self.executes:
            execution.refuse(type(self).__name__)
        self.execution = execution
        require(isinstance(T, int) and T >= 1, "steps", T, "an integer >= 1")
        require(isinstance(chunk, int) and chunk >= 1, "trainer.chunk", chunk, "an integer >= 1")
        require(all(seed >= 0 for seed in seeds) and len(seeds) >= 1, "seed", list(seeds), "integers >= 0")
        self.automatic_optimization = False
        self.T, self.eta, self.seeds, self.chunk = T, eta, seeds, chunk
        self.log_steps = log_steps(T, rows_per_decade)
        self.step = 0
        self.rows: list[Row] = []
        self.diverged: dict[int, Divergence] = {}
        self.march = March([self], chunk)

    @abstractmethod
    def advance(self, start: int, stop: int) -> None:
        """Make the updates start, …, stop − 1."""

    @abstractmethod
    def observe(self) -> list[Row]:
        """One row a seed at the present state: at least `seed` and `loss`."""

    @abstractmethod
    def flops_per_step(self) -> float:
        """Floating-point operations of one step of all seeds, multiply and add counted as two; what is left out is said."""

    def shape(self) -> tuple[Any, ...]:
        """What must be equal in modules that are advanced together, hashable; a subclass adds what its :meth:`join` needs.

        Asked after `on_fit_start`, when the module is on its device.
        """
        return (type(self), self.T, self.log_steps.tobytes(), str(self.device))

    def together(self) -> int:
        """How many modules of this shape are faster together than one after the other, as measured; 1: better alone."""
        return 1

    @classmethod
    def join(cls, members: Sequence[Self]) -> Joined:
        """The `members`, of one shape and at one step, as one that advances them together.

        Whatever it does inside, after its `advance(start, stop)` every member's `observe`, `state_dict` and optimisers hold, bit for bit, what
        its own `advance(start, stop)` would have left there; it need not touch `step` and `rows`. It is made anew when a member drops out, and
        takes the members' present state then. This default, one after the other, is its definition.
        """
        return OneByOne(members)

    @property
    def over(self) -> bool:
        """Whether there is nothing more to do: the last step is made or every seed diverged."""
        return self.step >= self.T or len(self.diverged) == len(self.seeds)

    def training_step(self, batch: tuple[int, int], batch_idx: int) -> None:
        """Make the steps of the range, stopping to measure where a row is due, and where `march.pause` asks for a stop."""
        del batch_idx
        if not self.march.to(int(batch[1])):
            self.trainer.should_stop = True

    def record(self) -> None:
        """Append a row for each seed that is still on the track."""
        first = {row["seed"]: row["loss"] for row in self.rows[: len(self.seeds)]}
        for row in self.observe():
            seed, loss = int(row["seed"]), float(row["loss"])
            if seed in self.diverged:
                continue
            if not np.isfinite(loss) or loss > BLOW_UP * first.get(seed, np.inf):
                K = float(row["K"]) if "K" in row else None
                self.diverged[seed] = Divergence(seed, self.step, self.eta * self.step, loss, K)
            else:
                self.rows.append({"step": self.step, "t": self.eta * self.step, **row})

    def curve(self) -> pl.DataFrame:
        """The rows so far, columns step, t, seed, loss and what else is measured; sorted by seed, then step."""
        if not self.rows:
            return pl.DataFrame(schema={"step": pl.Int64, "t": pl.Float64, "seed": pl.Int64, "loss": pl.Float64})
        rows = sorted(self.rows, key=lambda row: (row["seed"], row["step"]))
        return pl.DataFrame(rows, infer_schema_length=None)

    def configure_optimizers(self) -> Any:
        """No optimiser of Lightning's unless a subclass has one."""
        return None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the clock and the curve, as plain containers."""
        checkpoint["clock"] = {
            "step": self.step,
            "rows": self.rows,
            "diverged": [asdict(divergence) for divergence in self.diverged.values()],
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the clock and the curve back; rows after the checkpoint are made again."""
        clock = checkpoint["clock"]
        self.step, self.rows = clock["step"], list(clock["rows"])
        self.diverged = {entry["seed"]: Divergence(**entry) for entry in clock["diverged"]}
