"""What a run will take before it starts: headers and a short probe in, memory, disk, time and fitting sizes out."""

from stscale.planning.headers import Header, Size, read_headers
from stscale.planning.machine import Machine, probe
from stscale.planning.plan import Change, Plan, make_plan

__all__ = ["Change", "Header", "Machine", "Plan", "Size", "make_plan", "probe", "read_headers"]
