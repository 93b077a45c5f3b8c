"""Certified nonlinear regression problems of NIST's Statistical Reference Datasets that have linear parameters.

https://www.itl.nist.gov/div898/strd/nls/nls_main.shtml. The rows were typed from memory, so each is a check of the other: a wrong digit would
not give the certified residual sum of squares at the certified parameters (test_varpro.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Certified:
    """y = Φ(θ) c: basis(x, θ) → Φ (n, m), ∂Φ (n, m, k). order: where (c, θ) stand among NIST's b. starts, certified b, rss and digits of b."""

    name: str
    x: Any
    y: Any
    basis: Any
    order: tuple[int, ...]
    starts: Any
    b: Any
    rss: float


def _columns(*functions):
    """Φ and ∂Φ from (value, derivatives by θ) pairs."""
    Phi = np.stack([value for value, _ in functions], axis=-1)
    return Phi, np.stack([np.stack(list(d), axis=-1) for _, d in functions], axis=1)


def _mgh09(x, th):
    b2, b3, b4 = th
    d = x**2 + x * b3 + b4
    top = x**2 + x * b2
    return _columns((top / d, (x / d, -top * x / d**2, -top / d**2)))


def _mgh10(x, th):
    b2, b3 = th
    e = np.exp(b2 / (x + b3))
    return _columns((e, (e / (x + b3), -e * b2 / (x + b3) ** 2)))


def _boxbod(x, th):
    e = np.exp(-th[0] * x)
    return _columns((1 - e, (x * e,)))


def _rat43(x, th):
    b2, b3, b4 = th
    z = np.logaddexp(0, b2 - b3 * x)
    s = np.exp(b2 - b3 * x - z)
    f = np.exp(-z / b4)
    return _columns((f, (-f * s / b4, f * s * x / b4, f * z / b4**2)))


def _eckerle4(x, th):
    b2, b3 = th
    z = (x - b3) / b2
    g = np.exp(-(z**2) / 2) / b2
    return _columns((g, (g * (z**2 - 1) / b2, g * z / b2)))


def _thurber(x, th):
    d = 1 + th[0] * x + th[1] * x**2 + th[2] * x**3
    return _columns(*((x**i / d, [-(x ** (i + j)) / d**2 for j in (1, 2, 3)]) for i in range(4)))


def _exponentials(x, th):
    zero = np.zeros_like(x)
    each = [np.exp(-rate * x) for rate in th]
    return _columns(*((e, [-x * e if i == j else zero for j in range(len(th))]) for i, e in enumerate(each)))


def _lanczos(digits):
    x = 0.05 * np.arange(24)
    y = 0.0951 * np.exp(-x) + 0.8607 * np.exp(-3 * x) + 1.5576 * np.exp(-5 * x)
    return x, np.array([float(f"{value:.{digits - 1}e}") for value in y])


_LANCZOS = ((1.2, 0.3, 5.6, 5.5, 6.5, 7.6), (0.5, 0.7, 3.6, 4.2, 4.0, 6.3))
# fmt: off
PROBLEMS = (
    Certified(
        "MGH09", np.array([4, 2, 1, 0.5, 0.25, 0.167, 0.125, 0.1, 0.0833, 0.0714, 0.0625]),
        np.array([0.1957, 0.1947, 0.1735, 0.1600, 0.0844, 0.0627, 0.0456, 0.0342, 0.0323, 0.0235, 0.0246]),
        _mgh09, (0, 1, 2, 3), ((25, 39, 41.5, 39), (0.25, 0.39, 0.415, 0.39)),
        (1.9280693458e-1, 1.9128232873e-1, 1.2305650693e-1, 1.3606233068e-1), 3.0750560385e-4),
    Certified(
        "MGH10", np.arange(50.0, 130, 5),
        np.array([34780.0, 28610, 23650, 19630, 16370, 13720, 11540, 9744, 8261, 7030, 6005, 5147, 4427, 3820, 3307, 2872]),
        _mgh10, (0, 1, 2), ((2, 400000, 25000), (0.02, 4000, 250)),
        (5.6096364710e-3, 6.1813463463e3, 3.4522363462e2), 8.7945855171e1),
    Certified(
        "BoxBOD", np.array([1.0, 2, 3, 5, 7, 10]), np.array([109.0, 149, 149, 191, 213, 224]),
        _boxbod, (0, 1), ((1, 1), (100, 0.75)), (2.1380940889e2, 5.4723748542e-1), 1.1680088766e3),
    Certified(
        "Rat43", np.arange(1.0, 16),
        np.array([16.08, 33.83, 65.80, 97.20, 191.55, 326.20, 386.87, 520.53, 590.03, 651.92, 724.93, 699.56, 689.96, 637.56, 717.41]),
        _rat43, (0, 1, 2, 3), ((100, 10, 1, 1), (700, 5, 0.75, 1.3)),
        (6.9964151270e2, 5.2771253025, 7.5962938329e-1, 1.2792483859), 8.7864049080e3),
    Certified(
        "Eckerle4", np.concatenate([np.arange(400.0, 436, 5), np.arange(436.5, 465.5, 1.5), np.arange(470.0, 501, 5)]),
        np.array([
            0.0001575, 0.0001699, 0.0002350, 0.0003102, 0.0004917, 0.0008710, 0.0017418, 0.0046400, 0.0065895, 0.0097302, 0.0149002, 0.0237310,
            0.0401683, 0.0712559, 0.1264458, 0.2073413, 0.2902366, 0.3445623, 0.3698049, 0.3668534, 0.3106727, 0.2078154, 0.1164354, 0.0616764,
            0.0337200, 0.0194023, 0.0117831, 0.0074357, 0.0022732, 0.0008800, 0.0004579, 0.0002345, 0.0001586, 0.0001143, 0.0000710]),
        _eckerle4, (0, 1, 2), ((1, 10, 500), (1.5, 5, 450)), (1.5543827178, 4.0888321754, 4.5154121844e2), 1.4635887487e-3),
    Certified(
        "Thurber",
        np.array([
            -3.067, -2.981, -2.921, -2.912, -2.840, -2.797, -2.702, -2.699, -2.633, -2.481, -2.363, -2.322, -1.501, -1.460, -1.274, -1.212,
            -1.100, -1.046, -0.915, -0.714, -0.566, -0.545, -0.400, -0.309, -0.109, -0.103, 0.010, 0.119, 0.377, 0.790, 0.963, 1.006, 1.115,
            1.572, 1.841, 2.047, 2.200]),
        np.array([
            80.574, 84.248, 87.264, 87.195, 89.076, 89.608, 89.868, 90.101, 92.405, 95.854, 100.696, 101.060, 401.672, 390.724, 567.534,
            635.316, 733.054, 759.087, 894.206, 990.785, 1090.109, 1080.914, 1122.643, 1178.351, 1260.531, 1273.514, 1288.339, 1327.543,
            1353.863, 1414.509, 1425.208, 1421.384, 1442.962, 1464.350, 1468.705, 1447.894, 1457.628]),
        _thurber, (0, 1, 2, 3, 4, 5, 6), ((1000, 1000, 400, 40, 0.7, 0.3, 0.03), (1300, 1500, 500, 75, 1, 0.4, 0.05)),
        (1.2881396800e3, 1.4910792535e3, 5.8323836877e2, 7.5416644291e1, 9.6629502864e-1, 3.9797285797e-1, 4.9727297349e-2), 5.6427082397e3),
    Certified(
        "Lanczos2", *_lanczos(6), _exponentials, (0, 2, 4, 1, 3, 5), _LANCZOS,
        (9.6251029939e-2, 1.0057332849, 8.6424689056e-1, 3.0078283915, 1.5529016879, 5.0028798100), 2.2299428125e-11),
)
# fmt: on
