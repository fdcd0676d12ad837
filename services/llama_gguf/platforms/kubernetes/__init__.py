"""Kubernetes: plain manifests for `kubectl apply -k`, and the same objects as a Helm chart."""

from .options import KubernetesOptions
from .rendering import render

__all__ = ["KubernetesOptions", "render"]
