"""Models that are pickled and copied: joblib, multiprocessing by spawn and Ray send them to other processes."""

import copy
import multiprocessing
import os
import pickle
import shutil
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from support.tiny_bundle import tiny_config, tiny_files

import clipita
from clipita.bundles.bundle import write_bundle


def test_a_pickle_is_small_and_loads_the_same_model(shared_bundle: Path) -> None:
    model = clipita.load(shared_bundle, threads=1)
    data = pickle.dumps(model)
    assert len(data) < 2000
    again = pickle.loads(data)
    assert (again.name, again.fingerprint) == (model.name, model.fingerprint)
    np.testing.assert_array_equal(again.encode_text("un gatto"), model.encode_text("un gatto"))
    assert pickle.loads(data) is again  # a task at a time unpickles its model anew


def test_the_embedded_model_is_pickled_by_name() -> None:
    data = pickle.dumps(clipita.load())
    assert b"clipita-mini" in data
    assert os.path.dirname(clipita.__file__).encode() not in data


def test_settings_come_along(shared_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shared_bundle.parent)
    data = pickle.dumps(clipita.load(shared_bundle.name, exact=True))  # a relative path
    monkeypatch.chdir(tmp_path)
    again = pickle.loads(data)
    assert again.fingerprint == clipita.load(shared_bundle, exact=True).fingerprint
    assert again.fingerprint != clipita.load(shared_bundle).fingerprint


def test_another_model_of_the_same_name_is_refused(tmp_path: Path) -> None:
    write_bundle(tmp_path / "tiny", config=tiny_config(), files=tiny_files())
    data = pickle.dumps(clipita.load(tmp_path / "tiny"))
    shutil.rmtree(tmp_path / "tiny")
    with pytest.raises(clipita.ModelNotFoundError):
        pickle.loads(data)
    write_bundle(tmp_path / "tiny", config=tiny_config(), files=tiny_files(seed=1))
    with pytest.raises(clipita.CheckpointError, match="do not mix"):
        pickle.loads(data)


def test_copies_are_the_model_itself(shared_bundle: Path) -> None:
    model = clipita.load(shared_bundle)
    assert copy.copy(model) is model
    assert copy.deepcopy({"model": model})["model"] is model


def test_a_label_bank_comes_along(shared_bundle: Path) -> None:
    model = clipita.load(shared_bundle)
    bank = pickle.loads(pickle.dumps(model.label_bank(["gatto", "cane"])))
    image = np.zeros((9, 9, 3), np.uint8)
    assert model.zero_shot(image, bank) == model.zero_shot(image, ["gatto", "cane"])


def embed(model: clipita.Model, text: str) -> list[float]:
    return model.encode_text(text).tolist()


def test_a_spawned_process_takes_a_model(shared_bundle: Path) -> None:
    model = clipita.load(shared_bundle)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(embed, model, "un gatto").result() == model.encode_text("un gatto").tolist()
