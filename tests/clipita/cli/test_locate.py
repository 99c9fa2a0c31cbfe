"""The command `locate`: what it prints, what it writes, and what it refuses."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from click.testing import Result
from PIL import Image

Run = Callable[..., Result]


def test_a_place_is_printed_and_drawn(run: Run, photos: Path, tmp_path: Path) -> None:
    done = run("locate", photos / "b.png", "un cane", "-o", tmp_path / "mappa.png")
    assert done.exit_code == 0, done.output
    assert "from the left" in done.stdout
    with Image.open(tmp_path / "mappa.png") as drawn:
        assert drawn.size == (20, 10)


def test_as_json_the_map_is_whole(run: Run, photos: Path) -> None:
    found = json.loads(run("locate", photos / "b.png", "un cane", "--json").stdout)
    values = np.array(found["map"], float)
    assert found["method"] == "occlusion"
    assert np.isnan(values).sum() == values.size / 2  # the middle square of 20 x 10
    across, down = found["peak"]
    assert 0 < across < 1 > down > 0


def test_what_cannot_be_done_is_said(run: Run, photos: Path, tmp_path: Path) -> None:
    for arguments, message in (
        (("locate", photos / "b.png", "un cane", "-o", tmp_path / "mappa.txt"), "must end in .png"),
        (("locate", photos / "b.png", "un cane", "--method", "exact"), "choose 'occlusion'"),
        (("locate", photos / "note.txt", "un cane"), "note.txt"),
        (("locate", photos / "nessuna.png", "un cane"), "does not exist"),
    ):
        done = run(*arguments)
        assert done.exit_code == 2
        assert message in done.output
