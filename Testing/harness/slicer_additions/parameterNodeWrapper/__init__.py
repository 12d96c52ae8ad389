"""Stand-in for slicer.parameterNodeWrapper: typed access to a parameter node, and its connection with widgets.

The subset modules use: int, float, str, bool, enumerations, paths, MRML nodes, Optional and unions of nodes, list, dict
and tuple of these, parameter packs; Default and the validators; ``connectGui`` by the property ``SlicerParameterName``.
"""

from .connectors import Decimals, GuiConnector, SingleStep, createGuiConnector, parameterNodeGuiConnector
from .packs import parameterPack
from .validators import (
    Choice,
    Default,
    Exclude,
    IsInstance,
    Maximum,
    Minimum,
    NotNone,
    RangeBounds,
    Validator,
    WithinRange,
)
from .values import ParameterInfo
from .wrapper import (
    SlicerParameterNamePropertyName,
    findChildWidgetForParameter,
    isParameterNodeWrapper,
    parameterNodeWrapper,
)

__all__ = [
    "Choice",
    "Decimals",
    "Default",
    "Exclude",
    "GuiConnector",
    "IsInstance",
    "Maximum",
    "Minimum",
    "NotNone",
    "ParameterInfo",
    "RangeBounds",
    "SingleStep",
    "SlicerParameterNamePropertyName",
    "Validator",
    "WithinRange",
    "createGuiConnector",
    "findChildWidgetForParameter",
    "isParameterNodeWrapper",
    "parameterNodeGuiConnector",
    "parameterNodeWrapper",
    "parameterPack",
]
