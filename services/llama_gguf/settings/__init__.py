"""The configuration: one YAML file, read once, validated, handed down as one frozen value."""

from .locations import Locations, RunDir, locate
from .root import Settings, parse
from .snapshot import RUN_DIR_VARIABLE, Snapshot

__all__ = ["RUN_DIR_VARIABLE", "Locations", "RunDir", "Settings", "Snapshot", "locate", "parse"]
