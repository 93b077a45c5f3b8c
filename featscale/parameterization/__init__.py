"""How multipliers, initial scales and learning rates depend on width: a table, and the code that applies a row."""

from featscale.parameterization.centred import Centred
from featscale.parameterization.layers import Layers, tag, tag_of, tensor_rates
from featscale.parameterization.rules import (
    MEAN_FIELD,
    NTK,
    STANDARD,
    Parameterization,
    Rate,
    Tag,
    TensorRule,
    parameterization,
)

__all__ = [
    "MEAN_FIELD",
    "NTK",
    "STANDARD",
    "Centred",
    "Layers",
    "Parameterization",
    "Rate",
    "Tag",
    "TensorRule",
    "parameterization",
    "tag",
    "tag_of",
    "tensor_rates",
]
