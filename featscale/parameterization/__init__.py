"""How multipliers, initial scales and learning rates depend on width: a table, and the code that applies a row."""

from featscale.parameterization.centred import Centred
from featscale.parameterization.layers import Layers, parameter_groups, tag
from featscale.parameterization.rules import MEAN_FIELD, NTK, STANDARD, Parameterization, TensorRule, parameterization

__all__ = [
    "MEAN_FIELD",
    "NTK",
    "STANDARD",
    "Centred",
    "Layers",
    "Parameterization",
    "TensorRule",
    "parameter_groups",
    "parameterization",
    "tag",
]
