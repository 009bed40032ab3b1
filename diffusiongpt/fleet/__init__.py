"""Which replica of a fleet draws, and how many there are to be. Pure decisions, no processes."""

from diffusiongpt.fleet.choose import DISPLACED, Choice, Fleet
from diffusiongpt.fleet.demand import Demand, replicas_for
from diffusiongpt.fleet.state import Need, Place, ReplicaState, read_report

__all__ = ["DISPLACED", "Choice", "Demand", "Fleet", "Need", "Place", "ReplicaState", "read_report", "replicas_for"]
