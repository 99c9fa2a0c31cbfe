"""The type of NumPy arrays. Docstrings give the shape and dtype of each."""

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
