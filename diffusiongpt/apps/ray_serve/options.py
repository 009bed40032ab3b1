"""What a fleet consists of."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class FleetOptions(BaseModel):
    """The arguments of `fleet`, on the command line of Ray Serve or under `args` of its configuration file.

    Attributes:
        replicas: Replicas that draw, where their number is fixed.
        least: Replicas that stay when nothing is asked for; with `most`, Ray Serve starts and stops them by demand.
        most: Replicas at most; 0 for a fixed number.
        gpus: GPUs of each replica; 0 draws on processors.
        cpus: Processors of each replica.
        fronts: Copies of the server in front, each of which makes routes.
        zoo: Layers of the zoo, separated by commas; empty for those of the settings.
        memory: Memory of the replicas to plan for, as `"24GB+64GB"`; empty for that of the machine in front.
        hang_s: Seconds without a step after which a replica that draws is replaced.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    replicas: int = Field(default=1, ge=1, le=10_000)
    least: int = Field(default=0, ge=0, le=10_000)
    most: int = Field(default=0, ge=0, le=10_000)
    gpus: float = Field(default=0, ge=0, le=8)
    cpus: float = Field(default=1, gt=0, le=1024)
    fronts: int = Field(default=1, ge=1, le=1000)
    zoo: str = ""
    memory: str = ""
    hang_s: float = Field(default=600, gt=0)

    @property
    def layers(self) -> tuple[str, ...]:
        """Layers of the zoo."""
        return tuple(one.strip() for one in self.zoo.split(",") if one.strip())
