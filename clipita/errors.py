"""Define the exceptions of clipita, all of which `except ClipitaError` catches."""


class ClipitaError(Exception):
    """The base class of every error that clipita raises on purpose."""


class ImageError(ClipitaError, ValueError):
    """An image cannot be used: it is unreadable, truncated, or of a wrong type or shape. Names its path or index."""


class ImageTooLargeError(ImageError):
    """An image has more pixels than the limit, or takes more memory than a file of its size may; none is decoded."""


class TextError(ClipitaError, ValueError):
    """A text or a label cannot be used. Names its index."""


class ModelNotFoundError(ClipitaError, LookupError):
    """No model has this name, or its files are not on this machine and may not be fetched."""


class CheckpointError(ClipitaError):
    """A bundle or a checkpoint is damaged, incomplete, or of a layout or version that this clipita does not read."""


class BackendError(ClipitaError):
    """The engine that runs a model is missing, or refused the model or the request."""
