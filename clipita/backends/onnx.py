"""Run the towers on ONNX Runtime. No other module imports it."""

import ctypes
import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime  # pyright: ignore[reportMissingTypeStubs]

from clipita.backends.graph_check import check_graph
from clipita.backends.results import checked
from clipita.bundles.bundle import WEIGHTS, Bundle
from clipita.bundles.strict import did_you_mean
from clipita.errors import BackendError
from clipita.system.arrays import FloatArray, IntArray, Pixels
from clipita.system.cpus import usable_cpus
from clipita.system.memory import give_back
from clipita.system.process import in_forked_children

_ort: Any = onnxruntime

# On a CPU a large batch is no faster, since the memory of a run grows with it and leaves the caches. On two cores,
# runs of 1, 2, 4, 8, 16, 32 images of 224 x 224 take 4.2, 3.7, 3.5, 3.6, 4.2, 4.5 ms an image through
# EfficientNet-lite2, whose early maps are large (13 MB an image), and 16.0, 13.2, 11.6, 11.1, 11.1, 11.5 through an
# int8 ViT-B/32. Maps of more than some 20 MB also go back to the system after every run, and the next run asks for
# their pages again: from JPEG to embedding, runs of 2, 3, 4 images of 256 x 256 take 6.0, 6.0, 9.7 ms an image, with
# 83, 120, 2,191 page faults.
_IMAGES_PER_RUN = 8
_PIXELS_PER_RUN = {"efficientnet-lite": 4 * 224 * 224}

# Two threads that run a batch of texts each, on one CPU, embed 16 % more texts a second than both CPUs on one batch
# after the other: the products of a text are small, and threads within one wait for each other after every one.
# It takes the text tower's weights once more, 35 MB of clipita-mini, so large bundles do without.
_LARGEST_TWICE = 100 << 20  # bytes of a bundle's weights

# ONNX Runtime's name for the folder of the weights of a graph that comes as bytes.
_WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"


class OnnxBackend:
    """Run a bundle's graphs. A tower is loaded when it is first used, and threads may share it.

    Args:
        bundle: A verified bundle.
        precision: One of the bundle's precisions.
        threads: Threads within one operator; None means the CPUs this process may use.
        providers: ONNX Runtime execution providers, first choice first; None means the CPU. A provider that is named
            must be there: nothing falls back silently.

    Attributes:
        text_runs: How many threads may well embed texts at one time.

    Raises:
        BackendError: A provider is not available, or `threads` is not positive; later, a run failed.
    """

    name = "onnx"

    def __init__(
        self,
        bundle: Bundle,
        *,
        precision: str,
        threads: int | None = None,
        providers: Sequence[str] | None = None,
    ) -> None:
        self.threads = usable_cpus() if threads is None else threads
        if self.threads < 1:
            raise BackendError(f"threads must be at least 1, not {threads}.")
        if isinstance(providers, str) or (providers is not None and not providers):
            raise BackendError(f"providers must be a list such as ['CUDAExecutionProvider'], not {providers!r}.")
        self.providers = ("CPUExecutionProvider",) if providers is None else tuple(providers)
        available: list[str] = _ort.get_available_providers()
        for provider in self.providers:
            if provider not in available:
                raise BackendError(
                    f"ONNX Runtime has no provider {provider!r} here; it has {', '.join(available)}."
                    f"{did_you_mean(provider, available)} A GPU needs another build: pip install onnxruntime-gpu."
                )
        graphs = bundle.config.precisions[precision]
        width = bundle.config.embed_dim
        kind, image_size = bundle.config.image.get("kind"), bundle.config.image["preprocessing"]["image_size"]
        in_runs = self.providers == ("CPUExecutionProvider",)
        self._images_per_run = images_per_run(str(kind), image_size) if in_runs else None
        self._image = _Tower(bundle, graphs.image, width, self.threads, self.providers)
        is_small = bundle.path(WEIGHTS).stat().st_size <= _LARGEST_TWICE
        self.text_runs = self.threads if in_runs and is_small else 1
        one_tower = _SharedTower if self.text_runs > 1 else _Tower
        self._text = one_tower(bundle, graphs.text, width, self.threads, self.providers)
        self._positions = _Positions(bundle, graphs.image, width, self.threads, self.providers)

    def encode_pixels(self, pixels: Pixels) -> FloatArray:
        """Embed images: (B, S, S, 3) RGB pixels to (B, E) of unit norm."""
        return self._in_runs(self._image, pixels)

    def encode_positions(self, pixels: Pixels) -> FloatArray:
        """Compute projected vectors without a norm at all positions: (B, S, S, 3) RGB pixels to (B, N, E)."""
        vectors = self._in_runs(self._positions, pixels)
        return vectors.reshape(len(pixels), -1, vectors.shape[-1])

    def _in_runs(self, tower: "_Tower", pixels: Pixels) -> FloatArray:
        step = self._images_per_run or len(pixels)
        if len(pixels) <= step:
            return tower.run({"pixels": pixels})
        runs = [tower.run({"pixels": pixels[start : start + step]}) for start in range(0, len(pixels), step)]
        return np.concatenate(runs)

    def encode_tokens(self, input_ids: IntArray, attention_mask: IntArray) -> FloatArray:
        """Embed texts: (B, L) ids and mask to (B, E) of unit norm."""
        return self._text.run({"input_ids": input_ids, "attention_mask": attention_mask})


def images_per_run(kind: str, image_size: int) -> int:
    """Return how many images of `image_size` x `image_size` pixels a tower of this kind takes in one run on a CPU."""
    if kind not in _PIXELS_PER_RUN:
        return _IMAGES_PER_RUN
    return max(1, _PIXELS_PER_RUN[kind] // image_size**2)


class _Tower:
    """Run one graph, which is loaded at its first run, and again at the first run in a forked child."""

    def __init__(self, bundle: Bundle, name: str, width: int, threads: int, providers: tuple[str, ...]) -> None:
        self._bundle, self._name, self._path = bundle, name, bundle.path(name)
        self._width, self._threads, self._providers = width, threads, providers
        self._lock = threading.Lock()
        self._session: Any = None
        _towers.add(self)

    def run(self, inputs: dict[str, npt.NDArray[Any]]) -> FloatArray:
        """Return the embeddings (B, E) of the inputs, checked.

        Args:
            inputs: The graph's inputs by name, B rows each.

        Raises:
            BackendError: The graph cannot be loaded, or its run failed.
            CheckpointError: The output is no embeddings, see `checked`.
        """
        with self._lock:
            if self._session is None:
                self._session = self._load()
        try:
            result: object = self._session.run(None, inputs)[0]
        except Exception as error:  # ONNX Runtime's exceptions share no other base
            shapes = {name: value.shape for name, value in inputs.items()}
            raise BackendError(f"ONNX Runtime failed to run {str(self._path)!r} on {shapes}: {error}") from error
        return self._checked(result, len(next(iter(inputs.values()))))

    def _checked(self, result: object, rows: int) -> FloatArray:
        return checked(result, rows, self._width, f"{self._bundle.config.name!r} ({str(self._path)!r})")

    def leave_session_to_parent(self) -> None:
        """Forget, in a forked child, the session and the lock of the parent.

        The session's own threads do not exist in the child, and its destructor would wait for them for ever. It is
        therefore never destroyed here: one reference to it is never given back.
        """
        self._lock = threading.Lock()
        if self._session is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._session))
            self._session = None

    def _load(self) -> Any:
        graph, options = self._graph(), session_options(self._threads)
        if isinstance(graph, bytes):  # which has no folder of its own to find its weights in
            options.add_session_config_entry(_WEIGHTS_FOLDER, str(self._bundle.folder))
        try:
            session = _ort.InferenceSession(graph, options, providers=list(self._providers))
        except Exception as error:
            raise BackendError(f"ONNX Runtime cannot load {str(self._path)!r}: {error}") from error
        # A provider that is available may still fail to start (no driver, no device); the CPU then takes over.
        active: list[str] = session.get_providers()
        if not set(self._providers) <= set(active):
            raise BackendError(
                f"ONNX Runtime could not start {', '.join(self._providers)}; it would run on {', '.join(active)}. "
                "Check the driver and the device, or leave `providers` out to run on the CPU."
            )
        give_back()  # the memory that optimizing the graph took
        return session

    def _graph(self) -> str | bytes:
        """Return the path of the graph, once it is checked, or what such a file would hold."""
        check_graph(self._bundle, self._name)
        return str(self._path)


class _SharedTower(_Tower):
    """Run a graph on all CPUs for one caller, and on one CPU for each of several callers at the same time."""

    def __init__(self, bundle: Bundle, name: str, width: int, threads: int, providers: tuple[str, ...]) -> None:
        super().__init__(bundle, name, width, threads, providers)
        self._on_one_cpu = _Tower(bundle, name, width, 1, providers)
        self._callers: list[None] = []  # as many as run now; its methods need no lock

    def run(self, inputs: dict[str, npt.NDArray[Any]]) -> FloatArray:
        """Return the embeddings of the inputs, as `_Tower.run`."""
        is_alone = not self._callers
        self._callers.append(None)
        try:
            return super().run(inputs) if is_alone else self._on_one_cpu.run(inputs)
        finally:
            self._callers.pop()

    def leave_session_to_parent(self) -> None:
        """Forget also that other threads of the parent were running the tower. Its other half is registered itself."""
        super().leave_session_to_parent()
        self._callers = []


class _Positions(_Tower):
    """Run the image tower up to its positions, by a graph that is built from the bundle's weights when it is needed."""

    def _graph(self) -> str | bytes:
        # Only those who ask for places wait for onnx, which writes graphs.
        from clipita.convert.graph.towers import positions_graph
        from clipita.convert.weights.safetensors_file import StoredWeights, check_weights_file
        from clipita.towers.config import DualConfig, are_known

        config, weights = self._bundle.config, self._bundle.path(WEIGHTS)
        if not are_known(config):
            raise BackendError(
                f"{config.name!r} has towers that only its own graphs describe, which give no vectors of positions. "
                "Use method='occlusion'."
            )
        check_weights_file(weights)
        graph = positions_graph(DualConfig.from_bundle(config), StoredWeights.from_file(weights))
        return graph.SerializeToString()

    def _checked(self, result: object, rows: int) -> FloatArray:
        vectors = np.asarray(result)  # (B, N, E)
        flat = vectors.reshape(-1, vectors.shape[-1])
        return checked(flat, len(flat), self._width, f"{self._bundle.config.name!r}: its positions")


def run_each(
    bundle: Bundle, graph: bytes, inputs: Iterable[dict[str, npt.NDArray[Any]]]
) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """Run a graph over a bundle's weights, and yield its outputs by name for each of the inputs.

    Args:
        bundle: A verified bundle.
        graph: What the file of the graph would hold.
        inputs: By name.

    Raises:
        BackendError: The graph cannot be loaded, or its run failed.
    """
    options = session_options()
    options.add_session_config_entry(_WEIGHTS_FOLDER, str(bundle.folder))
    try:
        session = _ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        for given in inputs:
            yield dict(zip(names, session.run(names, given), strict=True))
    except Exception as error:  # ONNX Runtime's exceptions share no other base
        raise BackendError(f"ONNX Runtime failed to run a graph of {str(bundle.folder)!r}: {error}") from error


_towers: "weakref.WeakSet[_Tower]" = weakref.WeakSet()


def _leave_sessions_to_parent() -> None:
    for tower in list(_towers):
        tower.leave_session_to_parent()


in_forked_children(_leave_sessions_to_parent)


_may_spin = True


def let_threads_sleep() -> None:
    """Let the threads of sessions that are made from now on sleep as soon as they wait.

    For a process whose other threads have work for every CPU, as a busy server's have: 64 clients of `clipita serve`
    get 8 % more answers a second, and one alone waits no longer.
    """
    global _may_spin
    _may_spin = False


def session_options(threads: int | None = None) -> Any:
    """Return the options that every session of ours has; None means as many threads as this process may use CPUs."""
    options = _ort.SessionOptions()
    options.intra_op_num_threads = usable_cpus() if threads is None else threads
    options.inter_op_num_threads = 1
    # An arena never returns the memory that its largest batch took (1.5 GB after 128 images at once), and would be no
    # faster: in runs of a few images malloc has the pages at hand as well.
    options.enable_cpu_mem_arena = False
    # A thread that waits for its next share spins for a moment: to sleep and be woken takes longer than many operators.
    # It stops with the run, since spinning threads burn the CPUs that decode the next images. On two cores, against
    # threads that never spin: one text 6.4 -> 5.3 ms, one image of clipita-mini 10.5 -> 9.6, eight images of an int8
    # ViT-B/32 14.7 -> 14.2 ms each, files of 1024 x 768 through it 18.4 -> 17.9, at the same or less time of the CPUs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if _may_spin else "0")
    options.add_session_config_entry("session.intra_op.spin_duration_us", "50")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    # CPUs without VNNI add two products of bytes in 16 bits, which weights of 8 bits overflow. There such weights
    # become unsigned, whose products are exact; those of 7 bits stay (`clipita.convert.weights.quantize`).
    options.add_session_config_entry("session.x64quantprecision", "1")
    options.log_severity_level = 4  # fatal only: other errors are raised, and need not be printed as well
    return options
