"""The type of a NumPy array; its shape and dtype stand in the docstring of what takes or returns it."""

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
