"""What a fleet consists of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from diffusiongpt.settings import Memory


def _memory(text: str) -> str:
    if text:
        Memory.parse(text)
    return text


class ReplicaOptions(BaseModel):
    """One kind of replicas that draw.

    Attributes:
        replicas: Replicas that draw, where their number is fixed; with 0 there are none.
        least: Replicas that stay when nothing is asked for; with `most`, Ray Serve starts and stops them by demand.
        most: Replicas at most; 0 for a fixed number.
        gpus: GPUs of each replica; 0 draws on processors.
        cpus: Processors of each replica.
        resources: Other resources of Ray that each takes, such as `{"accelerator_type:H100": 0.001}`: they say on
            which nodes it may run.
        memory: Memory of the replicas to plan for, as `"24GB+64GB"`; empty for that of the machine in front.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    replicas: int = Field(default=1, ge=0, le=10_000)
    least: int = Field(default=0, ge=0, le=10_000)
    most: int = Field(default=0, ge=0, le=10_000)
    gpus: float = Field(default=0, ge=0, le=8)
    cpus: float = Field(default=1, gt=0, le=1024)
    resources: Mapping[str, float] = Field(default_factory=dict, max_length=20)
    memory: Annotated[str, AfterValidator(_memory)] = ""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.most and self.least > self.most:
            raise ValueError("least is more than most")
        return self


class KindOptions(ReplicaOptions):
    """One kind of several.

    Attributes:
        name: What routes call it.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")


class FleetOptions(ReplicaOptions):
    """The arguments of `fleet`, on the command line of Ray Serve or under `args` of its configuration file.

    Attributes:
        kinds: Kinds of replicas, where they are not all alike; then nothing is said of replicas outside of it.
        fronts: Copies of the server in front, each of which makes routes.
        front_resources: Other resources of Ray that each front takes: what waits in a front ends with its node, so they
            keep fronts off nodes that come and go.
        zoo: Layers of the zoo, separated by commas; empty for those of the settings.
        wait_s: With `most`: expected seconds of waiting above which there are to be more replicas.
        idle_s: With `most`: seconds in which fewer would do, after which some stop.
        hang_s: Seconds without a step after which a replica that has work is replaced.
    """

    kinds: tuple[KindOptions, ...] = Field(default=(), max_length=20)
    fronts: int = Field(default=1, ge=1, le=1000)
    front_resources: Mapping[str, float] = Field(default_factory=dict, max_length=20)
    zoo: str = ""
    wait_s: float = Field(default=30, gt=0)
    idle_s: float = Field(default=300, ge=0)
    hang_s: float = Field(default=600, gt=0)

    @model_validator(mode="after")
    def _said_once(self) -> Self:
        names = [kind.name for kind in self.kinds]
        if len(set(names)) < len(names):
            raise ValueError("two kinds have one name")
        if self.kinds and (both := sorted(self.model_fields_set & ReplicaOptions.model_fields.keys())):
            raise ValueError(f"{both[0]} is said outside of kinds, which say it of each kind")
        return self

    @property
    def drawing(self) -> Mapping[str, ReplicaOptions]:
        """Kind -> its replicas; the one kind of a fleet whose replicas are all alike has no name."""
        if self.kinds:
            return {kind.name: kind for kind in self.kinds if kind.replicas or kind.most}
        return {"": self} if self.replicas or self.most else {}

    @property
    def layers(self) -> tuple[str, ...]:
        """Layers of the zoo."""
        return tuple(one.strip() for one in self.zoo.split(",") if one.strip())
