"""Maps of every kind of tower: they add up, both backends agree, and what is planted in a picture is found there."""

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import ROOT
from support.tiny import CONFIG, make_tiny_bundle

import clipita
from clipita.convert.graph.towers import positions_graph
from clipita.towers.config import ProjectionConfig, VitConfig
from clipita.towers.positions import meaning_of_positions

PHOTOS = ROOT / "examples" / "photos"

LINEAR = dataclasses.replace(CONFIG, image_projection=ProjectionConfig(None, bias=True))
VIT = VitConfig(
    patch=8, width=48, layers=2, heads=3, mlp_width=80, activation="gelu", epsilon=1e-5, patch_bias=True,
    class_token=True, embedding_norm=True, pooling="cls",
)  # fmt: skip
TOWERS = {
    "efficientnet, linear": (LINEAR, "exact", 2),
    "efficientnet, mlp": (CONFIG, "patches", 2),
    "vit, class token": (dataclasses.replace(LINEAR, image=VIT), "patches", 5),
    "vit, pooler": (dataclasses.replace(LINEAR, image=dataclasses.replace(VIT, pooling="pooler")), "patches", 5),
    "vit, mean": (dataclasses.replace(LINEAR, image=dataclasses.replace(VIT, pooling="mean")), "exact", 5),
    "vit, query": (
        dataclasses.replace(LINEAR, image=dataclasses.replace(VIT, pooling="map", class_token=False)),
        "patches",
        5,
    ),
}


@pytest.fixture(scope="module")
def mini() -> clipita.Model:
    return clipita.load()


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (6, 6, 3)).astype(np.uint8)
    return Image.fromarray(values).resize((width, height), Image.Resampling.NEAREST)


@pytest.mark.parametrize("photo", ["gatto.jpg", "astronauta.jpg", "caffe.jpg", "razzo.jpg"])
def test_the_exact_map_of_the_embedded_model_sums_to_the_cosine(mini: clipita.Model, photo: str) -> None:
    texts = ["il gatto", "una bandiera", "un razzo che parte di notte"]
    cosines = mini.encode_text(texts) @ mini.encode_image(PHOTOS / photo)
    for found, cosine in zip(mini.locate(PHOTOS / photo, texts), cosines, strict=True):
        assert found.method == "exact"
        assert found.cosine == pytest.approx(float(cosine), abs=1e-5)
        assert float(np.nansum(found.map)) == pytest.approx(float(cosine), abs=1e-5)


def test_a_panorama_sums_too_and_is_seen_whole(mini: clipita.Model) -> None:
    strip = picture(900, 300)
    found = mini.locate(strip, "un muro colorato")
    assert found.map.shape == (32, 96)
    assert not np.isnan(found.map).any()
    assert found.cosine == pytest.approx(
        float(mini.encode_text("un muro colorato") @ mini.encode_image(strip)), abs=1e-5
    )
    assert float(found.map.sum()) == pytest.approx(found.cosine, abs=1e-5)


@pytest.mark.parametrize(("size", "crop", "shape", "unseen"), [
    ((400, 300), "center", (32, 43), 11 * 32), ((300, 400), "center", (43, 32), 11 * 32),
    ((300, 300), "center", (32, 32), 0), ((400, 300), "pad", (24, 32), 0), ((400, 300), "tiles", (32, 43), 0),
])  # fmt: skip
def test_a_map_covers_the_picture_and_is_nan_where_the_crop_does_not_look(
    mini: clipita.Model, size: tuple[int, int], crop: str, shape: tuple[int, int], unseen: int
) -> None:
    found = mini.locate(picture(*size), "un muro", crop=crop)  # type: ignore[arg-type]
    assert found.map.shape == shape
    assert np.isnan(found.map).sum() == unseen
    assert found.map.dtype == np.float32


def test_what_is_in_one_half_of_a_collage_is_found_there(mini: clipita.Model) -> None:
    cat, cup = (Image.open(PHOTOS / name).convert("RGB").resize((384, 256)) for name in ("gatto.jpg", "caffe.jpg"))
    for first, second, text in ((cat, cup, "una tazza di caffè"), (cup, cat, "un gatto")):
        collage = Image.new("RGB", (384, 512))
        collage.paste(first, (0, 0))
        collage.paste(second, (0, 256))
        for method in ("exact", "patches"):
            found = mini.locate(collage, text, method=method)  # type: ignore[call-overload]
            assert found.peak[1] > 0.5, (text, method)


@pytest.mark.slow
@pytest.mark.parametrize("tower", TOWERS)
def test_every_tower_gives_its_maps_on_both_backends(tmp_path: Path, tower: str) -> None:
    config, meaning, side = TOWERS[tower]
    assert meaning_of_positions(config) == meaning
    make_tiny_bundle(tmp_path, "float32", config)
    models = [clipita.load(tmp_path, backend=backend) for backend in ("onnx", "flax")]  # type: ignore[call-overload]
    seen, other = (
        {method: model.locate(picture(60, 45), ["un gatto", "un cane"], method=method) for method in methods}
        for model, methods in ((model, ("auto", meaning, "occlusion", "patches")) for model in models)
    )
    for method, found in seen.items():
        for ours, theirs in zip(found, other[method], strict=True):
            assert ours.method == theirs.method
            np.testing.assert_allclose(ours.map, theirs.map, atol=2e-5)
            assert ours.cosine == pytest.approx(theirs.cosine, abs=1e-5)
            assert np.nanmax(ours.map) > np.nanmin(ours.map)
    assert seen["auto"][0].method == ("exact" if meaning == "exact" else "occlusion")
    assert len(np.unique(seen["patches"][0].map[~np.isnan(seen["patches"][0].map)])) == side**2
    if meaning == "exact":
        for found in seen["exact"]:
            assert float(np.nansum(found.map)) == pytest.approx(found.cosine, abs=1e-5)
    else:
        with pytest.raises(clipita.BackendError, match="method='exact': choose 'patches' or 'occlusion'"):
            models[0].locate(picture(60, 45), "un gatto", method="exact")


@pytest.mark.slow
@pytest.mark.parametrize("formats", ["float16", "int8", "int4"])
def test_weights_of_few_bits_sum_too(tmp_path: Path, formats: str) -> None:
    make_tiny_bundle(tmp_path, formats, LINEAR)
    model = clipita.load(tmp_path)
    found = model.locate(picture(60, 45), "un gatto")
    expected = float(model.encode_text("un gatto") @ model.encode_image(picture(60, 45)))
    assert found.cosine == pytest.approx(expected, abs=1e-5)
    assert float(np.nansum(found.map)) == pytest.approx(expected, abs=1e-5)


def test_a_tower_that_only_its_graph_describes_is_asked_by_occlusion(shared_bundle: Path) -> None:
    model = clipita.load(shared_bundle)
    found = model.locate(picture(30, 20), "un gatto nero")
    assert found.method == "occlusion"
    for method in ("exact", "patches"):
        with pytest.raises(clipita.BackendError, match="choose 'occlusion'"):
            model.locate(picture(30, 20), "un gatto nero", method=method)  # type: ignore[call-overload]
    with pytest.raises(clipita.BackendError, match="Use method='occlusion'"):
        model._backend.encode_positions(np.zeros((1, 8, 8, 3), np.uint8))


def test_what_occlusion_measures_is_what_the_hidden_place_gave(shared_bundle: Path) -> None:
    model = clipita.load(shared_bundle)
    square = np.full((8, 8, 3), 127, np.uint8)
    square[:2, :2] = 255  # all else is what the hiding square shows
    found = model.locate(square, "un gatto", method="occlusion")
    corner = found.map[:4, :4]
    assert np.abs(corner).min() > 0
    assert not found.map[12:, 12:].any()


def test_places_can_be_asked_of_any_kind_of_input(mini: clipita.Model, tmp_path: Path) -> None:
    image = picture(60, 45)
    image.save(tmp_path / "foto.png")
    data = (tmp_path / "foto.png").read_bytes()
    expected = mini.locate(image, "un muro")
    for given in (tmp_path / "foto.png", str(tmp_path / "foto.png"), data, io.BytesIO(data), np.asarray(image)):
        found = mini.locate(given, "un muro")
        np.testing.assert_array_equal(found.map, expected.map)
        np.testing.assert_array_equal(np.asarray(found.overlay()), np.asarray(expected.overlay()))


def test_wrong_questions_say_what_is_right(mini: clipita.Model) -> None:
    with pytest.raises(ValueError, match="method must be one of 'auto', 'exact', 'patches', 'occlusion'"):
        mini.locate(picture(9, 9), "un muro", method="gradcam")  # type: ignore[call-overload]
    with pytest.raises(clipita.TextError):
        mini.locate(picture(9, 9), " ")
    with pytest.raises(clipita.ImageError):
        mini.locate(b"nessuna foto", "un muro")
    assert mini.locate(picture(9, 9), []) == []
    with pytest.raises(ValueError, match="opacity is from 0 to 1"):
        mini.locate(picture(9, 9), "un muro").overlay(opacity=2)


def test_a_strip_of_any_length_takes_little_memory(mini: clipita.Model) -> None:
    found = mini.locate(np.zeros((1, 60000), np.uint8), "una linea")
    assert found.map.size < 1 << 20
    assert float(np.nansum(found.map)) == pytest.approx(found.cosine, abs=1e-5)
    assert np.isnan(found.map).any()  # between its 16 squares


def test_the_drawing_leaves_the_picture_where_opacity_is_none(mini: clipita.Model) -> None:
    image = picture(300, 300)
    location = mini.locate(image, "un muro")
    np.testing.assert_array_equal(np.asarray(location.overlay(opacity=0)), np.asarray(image))
    drawn = location.overlay(opacity=1)
    assert drawn.size == (300, 300)
    assert (np.asarray(drawn) != np.asarray(image)).mean() > 0.3
    assert location.overlay(max_side=50).size == (50, 50)


def test_a_weights_file_that_names_bytes_outside_it_is_refused(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path, "float32", LINEAR)
    path = bundle.path("weights.safetensors")
    data = path.read_bytes()
    path.write_bytes(data[:-4])
    from clipita.backends.onnx import OnnxBackend

    with pytest.raises(clipita.CheckpointError, match="cannot be read"):
        OnnxBackend(bundle, precision="fp32").encode_positions(np.zeros((1, 40, 40, 3), np.uint8))


def test_the_graph_of_positions_needs_no_new_weights(tmp_path: Path) -> None:
    from clipita.convert.weights.safetensors_file import StoredWeights

    bundle = make_tiny_bundle(tmp_path, "int8", LINEAR)
    weights = StoredWeights.from_file(bundle.path("weights.safetensors"))
    built = positions_graph(LINEAR, weights)
    large = [tensor for tensor in built.graph.initializer if np.prod(tensor.dims) > 64]
    assert {entry.value for tensor in large for entry in tensor.external_data if entry.key == "location"} == {
        "weights.safetensors"
    }
