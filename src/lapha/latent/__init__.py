"""Latents of states: pooling, the bank that stores them, and the value head that reads them."""

from lapha.latent.bank import LatentBank
from lapha.latent.pooling import RunningMean, latent_points, pool_hidden, tangent
from lapha.latent.value_head import ValueHead, value_loss

__all__ = [
    "LatentBank",
    "RunningMean",
    "ValueHead",
    "latent_points",
    "pool_hidden",
    "tangent",
    "value_loss",
]
