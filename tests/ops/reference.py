"""Float64 sparse matrices of the operators, solved directly: the independent reference of the fast solvers."""

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu, spsolve


def laplacian(height, width):
    """Five-point Laplacian with Neumann borders."""

    def line(size):
        step = sparse.diags([-np.ones(size), np.ones(size - 1)], [0, 1], shape=(size - 1, size))
        return -(step.T @ step)

    return sparse.kron(line(height), sparse.eye(width)) + sparse.kron(sparse.eye(height), line(width))


def gaussian(height, width, sigma=0.5):
    """Convolution with a Gaussian cut at 4 sigma, over an image mirrored at its border."""

    def line(size):
        reach = int(4 * sigma + 0.5)
        taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
        matrix = np.zeros((size, size))
        for row in range(size):
            for offset, tap in zip(range(-reach, reach + 1), taps / taps.sum(), strict=True):
                column = (row + offset) % (2 * size)
                matrix[row, column if column < size else 2 * size - 1 - column] += tap
        return sparse.csr_array(matrix)

    return sparse.kron(line(height), line(width))


def gaussian_poisson(divergence, target, form, beta):
    """Solve the normal equation of a form as the table in `velatura.ops.gaussian_poisson` states it."""
    _, height, width = divergence.shape
    lap, gauss = laplacian(height, width), gaussian(height, width)
    colour = gauss if form == "code" else gauss @ gauss
    matrix = (lap @ lap if form == "printed" else -lap) + beta * colour
    solver = splu(sparse.csc_matrix(matrix))

    def one(source, wanted):
        right = (lap @ source if form == "printed" else -source) + beta * (colour @ wanted)
        return solver.solve(right)

    flat = [one(s.ravel(), t.ravel()) for s, t in zip(divergence, target, strict=True)]
    return np.stack(flat).reshape(divergence.shape)


def dirichlet(values, free, source=None):
    """Solve Poisson's equation on a mask."""
    channels, height, width = values.shape
    lap = -laplacian(height, width).tocsr()
    inside = free.ravel()
    out = values.reshape(channels, -1).astype(np.float64)
    right = -(lap[inside][:, ~inside] @ out[:, ~inside].T)
    if source is not None:
        right += source.reshape(channels, -1)[:, inside].T
    out[:, inside] = np.reshape(spsolve(lap[inside][:, inside].tocsc(), right), (-1, channels)).T
    return out.reshape(values.shape)
