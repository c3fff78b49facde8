"""The exact distance matrix of a set of latents, in CPU memory, where the linkage runs."""

from __future__ import annotations

import numpy as np
import torch

from lapha.geometry import PolarPoints

# Rows of one block. Half the matrix is mirrored rather than computed; small blocks waste little on
# the diagonal, and large enough ones keep the matrix unit busy.
BLOCK_ROWS = 512


def distance_matrix(points: PolarPoints) -> np.ndarray:
    """Geodesic distances (N, N) float32, exactly symmetric, zero on the diagonal.

    Only the blocks on and above the diagonal are computed; the others are mirrored.
    """
    from lapha.kernels import pairwise_dist

    size = len(points)
    matrix = torch.empty(size, size, dtype=torch.float32)
    for start in range(0, size, BLOCK_ROWS):
        stop = min(start + BLOCK_ROWS, size)
        block = pairwise_dist(points[start:stop], points[start:]).float().cpu()
        matrix[start:stop, start:] = block
        matrix[stop:, start:stop] = block[:, stop - start :].T
        corner = matrix[start:stop, start:stop]
        upper = torch.triu(corner, diagonal=1)
        torch.add(upper, upper.T, out=corner)
    return matrix.numpy()
