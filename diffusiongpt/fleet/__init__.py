"""Which replica of a fleet draws: where the model already is, or will be first. Pure decisions, no processes."""

from diffusiongpt.fleet.choose import DISPLACED, Choice, Fleet
from diffusiongpt.fleet.state import Need, Place, ReplicaState

__all__ = ["DISPLACED", "Choice", "Fleet", "Need", "Place", "ReplicaState"]
