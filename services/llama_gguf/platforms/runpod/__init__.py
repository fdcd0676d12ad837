"""RunPod: a load-balancing endpoint, a Pod template and the Hub's files, for REST API v2."""

from .hub import hub_dockerfile
from .options import RunPodOptions
from .rendering import render

__all__ = ["RunPodOptions", "hub_dockerfile", "render"]
