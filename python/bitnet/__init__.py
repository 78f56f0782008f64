from ._core import *
from .errors import *
from ._core import Engine, isas, inspect, processor, read_bandwidth
