"""Provide texts and pictures on which two forms of one model are compared, if the user gives no others."""

import numpy as np
import numpy.typing as npt

TEXTS = (
    "un gatto nero",
    "una foto di un cane",
    "il mare d'inverno",
    "due bambini giocano a pallone in un parco",
    "una tazzina di caffè sul bancone di un bar",
    "un treno regionale fermo alla stazione di Bologna",
    "la facciata di una chiesa barocca al tramonto",
    "una strada di montagna coperta di neve",
    "un piatto di spaghetti al pomodoro e basilico",
    "una bicicletta rossa appoggiata a un muro di mattoni",
    "un'anziana signora legge il giornale su una panchina",
    "barche di pescatori nel porto di un piccolo paese",
    "un computer portatile su una scrivania disordinata",
    "perché il cielo è blu?",
    "scarpe",
    "Una folla di persone attraversa la piazza sotto la pioggia, mentre un musicista di strada suona la fisarmonica.",
)


def pictures(size: int, count: int = 8) -> npt.NDArray[np.uint8]:
    """Make random colored clouds, (count, size, size, 3), whose contrast falls with fineness as in photographs."""
    random = np.random.default_rng(0)
    frequencies = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)[None])  # (size, size)
    frequencies[0, 0] = 1 / size
    noise = np.fft.fft2(random.standard_normal((count, 3, size, size)))
    clouds = np.fft.ifft2(noise / frequencies).real  # (count, 3, size, size)
    clouds = (clouds - clouds.mean((2, 3), keepdims=True)) / clouds.std((2, 3), keepdims=True)
    return np.clip(127 + 55 * clouds, 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
