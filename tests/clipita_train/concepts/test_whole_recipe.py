"""The whole path on a handful of pictures: prepare, run, export, evaluate. Only the towers are tiny and random."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import clipita_train.cli
import clipita_train.concepts.cli
import clipita_train.recipes.mini
import jax
import numpy as np
import pytest
from click.testing import CliRunner, Result
from clipita_train.concepts.batches import ConceptBatches, Mix
from clipita_train.concepts.export import export
from clipita_train.concepts.material import HeldOutSource, _left_out
from clipita_train.concepts.projections import project, unit_rows
from clipita_train.concepts.recipe import Corpus, ProjectionsRecipe, Recipe, TailRecipe, Towers
from clipita_train.concepts.run import Trained
from clipita_train.concepts.tail import first_block
from clipita_train.data.concepts import load_ontology
from clipita_train.data.photographs.collections import COLLECTIONS
from clipita_train.data.photographs.example import Example
from clipita_train.data.photographs.manifest import read_manifest
from clipita_train.data.photographs.readers import tiny_imagenet
from clipita_train.engine.config import ParameterRule, StageConfig, TrainConfig
from clipita_train.towers.pretrained import image_tower_of
from jax.experimental.compilation_cache.compilation_cache import reset_cache
from PIL import Image
from support.tiny import CONFIG, tiny_table, tiny_tokenizer

import clipita
from clipita.convert.export import Provenance
from clipita.convert.layouts.efficientnet_lite import fold_batch_norm
from clipita.convert.weights.quantize import SMALL, dequantize, quantize
from clipita.text.tokenizer import Tokenizer, TokenizerConfig
from clipita.towers.config import ProjectionConfig
from clipita.towers.efficientnet_config import LITE0

pytestmark = pytest.mark.slow

SAMPLES = ("n01440764", "n02099712", "n02124075", "n02129165")  # the classes that the tiny classifier knows
SHOWN = SAMPLES[1:3]  # those with photographs: a labrador, a cat
PROJECTIONS = StageConfig(
    "projections",
    (ParameterRule("(image|text)_projection/.*"),),
    learning_rate=1e-3,
    batch_size=16,
    steps=4,
    eval_every=2,
)
MEMBER = ProjectionsRecipe({"flickr8k": 2.0}, TrainConfig(stages=(PROJECTIONS,), save_every=1))
RECIPE = replace(
    clipita_train.recipes.mini.RECIPE,
    sources=tuple(
        replace(source, read=partial(tiny_imagenet, train=40)) if source.name == "tiny_imagenet" else source
        for source in COLLECTIONS
        if source.name in ("tiny_imagenet", "imagenet_samples", "flickr8k")
    ),
    embed_dim=CONFIG.embed_dim,
    tail=TailRecipe(
        blocks=1,
        image_size=CONFIG.preprocessing.image_size,
        projections=ProjectionsRecipe(
            {"tiny_imagenet": 2.0},
            TrainConfig(
                stages=(
                    replace(PROJECTIONS, parameters=(*PROJECTIONS.parameters, ParameterRule("image_tail/.*", 0.0))),
                    StageConfig(
                        "tail",
                        (ParameterRule("(image|text)_projection/.*"), ParameterRule("image_tail/.*", 0.5)),
                        learning_rate=1e-3,
                        batch_size=16,
                        steps=2,
                        eval_every=2,
                    ),
                ),
                save_every=1,
            ),
        ),
    ),
    image_size=CONFIG.preprocessing.image_size + 16,
    text_projection=ProjectionConfig(hidden=16, bias=True),
    members=(MEMBER, replace(MEMBER, text_drift=0.4)),
    tokenizer=TokenizerConfig(max_tokens=40, prefix="query: "),
    mix=Mix(photographs=16, texts=32, words=2, captions=2, classifier_share=0.25),
    frequent_words=100,
    weight_formats={},
    integer_images=False,
)
NOUNS = """\
  14 WordNet 3.0 Copyright 2006 by Princeton University.  All rights reserved.
02099712 05 n 01 Labrador_retriever 0 000 | breed originally from Labrador
02124075 05 n 01 Egyptian_cat 0 000 | a domestic cat of Egypt
02121620 05 n 02 cat 0 true_cat 0 000 | feline mammal usually having thick soft fur
"""
ITALIAN = (
    "02099712-n\tita:lemma\tcane di Terranova\n02124075-n\tita:lemma\tgatto egizio\n02121620-n\tita:lemma\tgatto\n"
)


def tiny_towers(recipe: Recipe, tokenizer_file: Path) -> Towers:
    table = fold_batch_norm(tiny_table())
    text = {name: values for name, values in table.items() if name.startswith("text.")}
    formats = {name: format for name, format in SMALL.items() if name.startswith("text") and "projection" not in name}
    return Towers(
        replace(
            CONFIG,
            preprocessing=replace(CONFIG.preprocessing, image_size=recipe.image_size),
            embed_dim=recipe.embed_dim,
            image_projection=recipe.image_projection,
            text_projection=recipe.text_projection,
        ),
        {name: values for name, values in table.items() if name.startswith("image.")},
        quantize(text, formats),
        np.random.default_rng(1).normal(size=(len(SAMPLES), CONFIG.image.features)).astype(np.float32),
        Tokenizer.from_file(tokenizer_file, recipe.tokenizer),
        tokenizer_file,
    )


@dataclass(frozen=True)
class Place:
    """Folders with photographs, WordNets and room to work in."""

    folder: Path

    @property
    def work(self) -> Path:
        return self.folder / "work"

    def call(self, command: str, *more: str) -> Result:
        corpus = ["--nouns", f"{self.folder}/data.noun", "--omw", f"{self.folder}/wns"]
        arguments = ["evaluate", "development"] if command == "development" else [command, "mini"]
        arguments += ["--root", f"{self.folder}/photographs", "--work", f"{self.work}"]
        arguments += corpus if command in ("run", "export") else []
        return CliRunner().invoke(clipita_train.cli.main, [*arguments, *more])


def make_photographs(root: Path) -> None:
    rng = np.random.default_rng(0)
    folders = {source.name: root / source.repository for source in RECIPE.sources}

    def save(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (44, 48, 3), dtype=np.uint8)).save(path)

    tiny = folders["tiny_imagenet"] / "tiny-imagenet-200"
    for wnid in SHOWN:
        for i in range(40):
            save(tiny / "train" / wnid / "images" / f"{wnid}_{i}.JPEG")
    (tiny / "wnids.txt").write_text("\n".join(SHOWN))
    for i in range(4):
        save(tiny / "val" / "images" / f"val_{i}.JPEG")
    (tiny / "val" / "val_annotations.txt").write_text("".join(f"val_{i}.JPEG\t{SHOWN[i % 2]}\t0\n" for i in range(4)))
    for wnid in SAMPLES:
        save(folders["imagenet_samples"] / f"{wnid}_some_name.JPEG")
    captions = root / "prakhar-dhakar" / "Image-Captioning"
    captions.mkdir(parents=True)
    for i in range(6):
        save(folders["flickr8k"] / "data" / "images" / f"{i}.jpg")
    (captions / "Flickr8k.token.txt").write_text("".join(f"{i}.jpg#{n}\ta cat {n}\n" for i in range(6) for n in (0, 1)))
    (captions / "Flickr_8k.testImages.txt").write_text("0.jpg\n")
    # A training photograph that the validation set has too, and one that is damaged.
    seen = tiny / "train" / SHOWN[0] / "images"
    (seen / f"{SHOWN[0]}_0.JPEG").write_bytes((tiny / "val" / "images" / "val_0.JPEG").read_bytes())
    (seen / f"{SHOWN[0]}_1.JPEG").write_bytes(b"")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Everything that a run needs, not prepared yet."""
    folder = tmp_path_factory.mktemp("training")
    (folder / "tokenizer.json").write_text(tiny_tokenizer(), encoding="utf-8")
    (folder / "data.noun").write_text(NOUNS, encoding="utf-8")
    for name in ("ita/wn-data-ita.tab", "iwn/wn-data-ita.tab", "wikt/wn-wikt-ita.tab"):
        (folder / "wns" / name).parent.mkdir(parents=True)
        (folder / "wns" / name).write_text(ITALIAN if name.startswith("ita") else "# none\n", encoding="utf-8")
    make_photographs(folder / "photographs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clipita_train.recipes.mini, "RECIPE", RECIPE)
        jax.config.update("jax_compilation_cache_dir", f"{folder}/compiled")  # every run compiles the same steps
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        patch.setattr(
            clipita_train.concepts.cli, "load_towers", lambda recipe: tiny_towers(recipe, folder / "tokenizer.json")
        )
        yield Place(folder)
    jax.config.update("jax_compilation_cache_dir", None)
    reset_cache()


@pytest.fixture(scope="module")
def prepared(place: Place) -> Place:
    result = place.call("prepare")
    assert result.exit_code == 0, result.output
    assert "     78 train tiny_imagenet" in result.output
    assert "left out: 1 unreadable, 0 repeated in training, 1 training photographs" in result.output
    return place


@pytest.fixture(scope="module")
def trained(prepared: Place) -> Place:
    result = prepared.call("run")
    assert result.exit_code == 0, result.output
    assert f"wrote {prepared.work}/run/projections.npz, logit scale " in result.output
    return prepared


@pytest.fixture(scope="module")
def bundle(trained: Place) -> Path:
    out = trained.folder / "bundle"
    result = trained.call("export", "--out", f"{out}", "--revision", "2026-01-01")
    assert result.exit_code == 0, result.output
    assert f"wrote {out}: " in result.output
    return out


def weights(path: Path) -> dict[str, np.ndarray]:
    with np.load(path / "projections.npz", allow_pickle=False) as arrays:
        return dict(arrays)


def test_steps_before_their_turn_say_what_comes_first(place: Place, tmp_path: Path) -> None:
    elsewhere = ["--work", f"{tmp_path}"]
    for command, more, message in (
        ("run", [], f"no manifest at {tmp_path}/manifest.jsonl: write it first, with clipita-train prepare"),
        (
            "export",
            ["--out", f"{tmp_path}/bundle", "--revision", "1"],
            f"no trained projections at {tmp_path}/run/projections.npz: finish clipita-train run first",
        ),
    ):
        result = place.call(command, *elsewhere, *more)
        assert result.exit_code == 1
        assert result.output == f"Error: {message}\n"


def test_the_manifest_has_both_splits_and_no_photograph_twice(prepared: Place) -> None:
    examples = read_manifest(prepared.work / "manifest.jsonl")
    assert len({example.path for example in examples}) == len(examples) == 78 + 4 + 4 + 6
    left_out = (prepared.work / "manifest.left-out.txt").read_text("utf-8")
    assert f"{SHOWN[0]}_0.JPEG" in left_out
    assert f"{SHOWN[0]}_1.JPEG: " in left_out


def test_a_run_keeps_its_settings_metrics_and_projections(trained: Place) -> None:
    run = trained.work / "run"
    validations = {"tail": 3 + 2, "projections-0": 3, "projections-1": 3}
    assert {path.name for path in run.iterdir()} == {"projections.npz", *validations}
    for name, expected in validations.items():
        assert (run / name / "config.json").is_file()
        lines = (run / name / "metrics.jsonl").read_text("utf-8").splitlines()
        assert sum('"validation"' in line for line in lines) == expected
        assert all("NaN" not in line for line in lines)
    assert weights(run)["image_projection.linear.kernel"].shape == (CONFIG.image.features, CONFIG.embed_dim)
    assert all(np.isfinite(values).all() for values in weights(run).values())


def test_features_are_computed_once(trained: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a tower ran again")

    monkeypatch.setattr("clipita_train.towers.features.LockedTower.__call__", refuse)
    result = trained.call("run", "--resume")
    assert result.exit_code == 0, result.output


def test_a_run_is_not_begun_over_another(trained: Place) -> None:
    result = trained.call("run")
    assert result.exit_code == 1
    assert result.output == f"Error: {trained.work}/run/tail holds a run: resume it, or name another folder\n"


@pytest.mark.parametrize("at", [3, 6 + 4 + 3])  # of 6 batches for the tail and 4 for each pair of projections
def test_a_killed_run_goes_on_to_the_same_bits(trained: Place, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    before = weights(trained.work / "run")
    (trained.work / "run").rename(trained.work / "finished")
    try:
        draw: Callable[[ConceptBatches], dict[str, np.ndarray]] = ConceptBatches.__next__
        drawn = count()

        def killed(batches: ConceptBatches) -> dict[str, np.ndarray]:
            if next(drawn) == at:
                raise KeyboardInterrupt
            return draw(batches)

        with monkeypatch.context() as patch:
            patch.setattr(ConceptBatches, "__next__", killed)
            assert trained.call("run").exit_code != 0
        assert not (trained.work / "run" / "projections.npz").exists()
        result = trained.call("run", "--resume")
        assert result.exit_code == 0, result.output
        after = weights(trained.work / "run")
        assert after.keys() == before.keys()
        assert all(np.array_equal(after[name], before[name]) for name in before)
    finally:
        shutil.rmtree(trained.work / "run")
        (trained.work / "finished").rename(trained.work / "run")


def test_a_source_is_left_out_alone_or_with_its_classes_and_narrower_kinds() -> None:
    mushroom, onion = Example("a.jpg", "grocery", "train", "mushroom_kind"), Example("b.jpg", "crops", "train", "onion")
    corpus: Any = SimpleNamespace(examples=[mushroom, onion, Example("c.jpg", "grocery", "dev", "onion")])
    barred, usable = _left_out(corpus, [mushroom, onion], HeldOutSource("grocery"))
    assert len(barred) == 0
    assert usable.tolist() == [False, True]
    barred, usable = _left_out(corpus, [mushroom, onion], HeldOutSource("grocery", classes=True))
    names = {load_ontology().concepts[k].id for k in barred}
    assert {"mushroom_kind", "brown_mushroom", "n12998815", "onion"} <= names  # an agaric is a mushroom
    assert not {"vegetable", "animal", "n02124075"} & names
    assert usable.tolist() == [False, True]


def test_a_run_without_a_source_goes_into_a_folder_of_its_own(trained: Place) -> None:
    for source, message in (
        ("somewhere", "Error: the manifest has no photographs of 'somewhere'"),
        ("tiny_imagenet", "Error: no concept has more than 20 photographs to learn from"),
        ("tiny_imagenet:class", "expected SOURCE or SOURCE:classes, not 'tiny_imagenet:class'"),
    ):
        result = trained.call("run", "--leave-out", source)
        assert result.exit_code != 0
        assert message in result.output
    for option, folder in (("flickr8k", "flickr8k"), ("flickr8k:classes", "flickr8k-classes")):  # it shows no concept
        assert trained.call("run", "--leave-out", option).exit_code == 0
        assert (trained.work / f"run-without-{folder}" / "projections.npz").exists()


def test_projections_are_trained_on_the_image_tower_of_a_bundle(trained: Place, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "manifest.jsonl").write_bytes((trained.work / "manifest.jsonl").read_bytes())
    (tmp_path / "features").symlink_to(trained.work / "features")
    options = ["--work", f"{tmp_path}", "--tower", f"{bundle}"]
    assert trained.call("run", *options).exit_code == 0
    assert not (tmp_path / "run" / "tail").exists()
    expected, found = weights(trained.work / "run"), weights(tmp_path / "run")
    assert found.keys() == expected.keys()
    assert all(np.array_equal(values, expected[name]) for name, values in found.items())  # it is the tower of that run

    result = trained.call("run", *options, "--leave-out", "flickr8k")
    assert result.output == (
        "Error: the given image tower may have been trained on flickr8k: leave the source out without --tower and "
        "--tail-from\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        tower = image_tower_of(bundle, CONFIG.image)
        patch.setattr(
            clipita_train.concepts.cli,
            "image_tower_of",
            lambda *_: tower | {"image.head.bias": tower["image.head.bias"] + 1},
        )
        result = trained.call("run", *options, "--resume")
    assert result.exit_code == 1
    assert result.output.startswith("Error: ")
    assert "image_tower" in result.output


def test_the_tail_goes_on_from_the_image_tower_of_a_bundle(trained: Place, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "manifest.jsonl").write_bytes((trained.work / "manifest.jsonl").read_bytes())
    options = ["--work", f"{tmp_path}", "--tail-from", f"{bundle}"]
    tower = image_tower_of(bundle, CONFIG.image)
    moved = tower | {"image.head.bias": tower["image.head.bias"] + 1}  # so that it is known again
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clipita_train.concepts.cli, "image_tower_of", lambda *_: moved)
        result = trained.call("run", *options)
    assert result.exit_code == 0, result.output
    begun, found = dequantize(moved), weights(tmp_path / "run")
    first = first_block(CONFIG, RECIPE.tail.blocks)
    tail = ("image.head.", *(f"image.blocks.{number}." for number in range(first, first + RECIPE.tail.blocks)))
    for name, values in begun.items():
        np.testing.assert_allclose(found[name], values, atol=0.2 if name.startswith(tail) else 1e-6, err_msg=name)
    assert (tmp_path / "run" / "tail" / "metrics.jsonl").exists()

    for more, message in (
        (["--tower", f"{bundle}"], "--tower keeps it as it is: give one of them"),
        (["--set", "tail=none"], "this recipe trains none"),
    ):
        result = trained.call("run", *options, *more)
        assert result.exit_code == 1
        assert result.output == f"Error: --tail-from trains the end of an image tower on, but {message}\n"


def test_without_a_tail_the_image_tower_stays_as_it_is(prepared: Place, tmp_path: Path) -> None:
    (tmp_path / "manifest.jsonl").write_bytes((prepared.work / "manifest.jsonl").read_bytes())
    result = prepared.call("run", "--work", f"{tmp_path}", "--set", "tail=none")
    assert result.exit_code == 0, result.output
    assert not (tmp_path / "run" / "tail").exists()
    assert not (tmp_path / "maps").exists()
    assert {name.split(".")[0] for name in weights(tmp_path / "run")} == {
        "image_projection",
        "text_projection",
        "logit_scale",
    }


def test_another_kind_of_image_tower_is_refused(bundle: Path) -> None:
    assert len(image_tower_of(bundle, CONFIG.image)["image.head.bias"]) == CONFIG.image.features
    with pytest.raises(ValueError, match=r"the image tower of '.*bundle' is .*, but the recipe is for .*"):
        image_tower_of(bundle, LITE0)


def test_the_bundle_is_a_model(bundle: Path, trained: Place) -> None:
    model = clipita.load(bundle)
    assert model.name == "clipita-mini"
    assert model.templates == RECIPE.templates
    photograph = next((trained.folder / "photographs").rglob("val_0.JPEG"))
    answers = model.zero_shot(photograph, ["un cane", "un gatto", "qualcosa"])
    assert sum(answer.score for answer in answers) == pytest.approx(1, abs=1e-5)


def test_the_bundle_computes_what_was_trained(trained: Place, tmp_path: Path) -> None:
    folder = trained.folder
    towers = tiny_towers(RECIPE, folder / "tokenizer.json")
    corpus = Corpus(RECIPE, towers, folder / "photographs", folder / "data.noun", folder / "wns", trained.work)
    examples = corpus.examples[:5]
    parts = weights(trained.work / "run")
    logit_scale = float(parts.pop("logit_scale"))
    changed = {name: values for name, values in parts.items() if name in towers.image}
    assert changed.keys() == towers.image.keys()
    assert {name for name, values in changed.items() if not np.array_equal(values, towers.image[name])} <= {
        name for name in towers.image if name.startswith(("image.blocks", "image.head"))
    }
    changed["image.head.bias"] += 1  # whether the tail has learnt anything from noise or not
    made = export(
        corpus, Trained({**parts, **changed}, logit_scale), tmp_path, Provenance("tiny", "MIT", "a test", "1")
    )
    corpus = replace(corpus, towers=replace(towers, image={**towers.image, **changed}))
    features, _ = corpus.image_features(examples)
    image = {name.split(".", 1)[1]: v for name, v in parts.items() if name.startswith("image_projection.")}
    text = {name.split(".", 1)[1]: v for name, v in parts.items() if name.startswith("text_projection.")}
    model = clipita.load(made.bundle.folder)
    photographs = model.encode_image([corpus.root / example.path for example in examples])
    assert (photographs * unit_rows(project(image, features))).sum(1).min() > 0.999  # of features in float16
    texts = ["un cane", "un gatto nero"]
    read = unit_rows(project(text, corpus.text_features(texts)))
    assert (model.encode_text(texts) * read).sum(1).min() > 0.999


@pytest.mark.filterwarnings("ignore:.* texts are longer than")  # most pieces of the tiny tokenizer are single letters
def test_evaluate_writes_its_table(bundle: Path, trained: Place, tmp_path: Path) -> None:
    result = trained.call("development", "--model", f"{bundle}", "--out", f"{tmp_path}/scores")
    assert result.exit_code == 0, result.output
    assert "| tiny_imagenet | 4 | 2 | " in result.output
    assert (tmp_path / "scores.md").read_text("utf-8") in result.output
    assert '"task": "broader kinds"' in (tmp_path / "scores.json").read_text("utf-8")


def test_sources_prints_clone_commands_and_terms(place: Place) -> None:
    result = CliRunner().invoke(clipita_train.cli.main, ["sources", "mini", "--root", "foto"])
    assert result.exit_code == 0
    assert "git clone https://github.com/seshuad/IMagenet foto/seshuad/IMagenet\n" in result.output
    assert "# flickr8k: Flickr8k terms: research\n" in result.output
    assert "git clone https://github.com/prakhar-dhakar/Image-Captioning" in result.output


@pytest.mark.usefixtures("place")
def test_missing_photographs_and_unknown_names_are_one_line(tmp_path: Path) -> None:
    def fails(*arguments: str) -> str:
        result = CliRunner().invoke(
            clipita_train.cli.main, [*arguments, "--root", f"{tmp_path}", "--work", f"{tmp_path}/w"]
        )
        assert result.exit_code != 0
        assert isinstance(result.exception, SystemExit), result.exception  # no traceback
        assert result.output.splitlines()[-1].startswith("Error: ")
        return result.output.splitlines()[-1]

    missing = fails("prepare", "mini")
    assert "git clone https://github.com/seshuad/IMagenet" in missing
    assert missing.endswith("; or leave it out: --without tiny_imagenet")
    assert "flickr8k" in fails("prepare", "mini", "--without", "tiny_imagenet", "--without", "imagenet_samples")
    assert fails("prepare", "mini", "--without", "nothing").endswith(
        "the recipe has no source nothing to leave out: see clipita-train sources"
    )
    assert "'maxi' is no recipe; there are: " in fails("prepare", "maxi")


def test_a_mistyped_setting_is_named(prepared: Place) -> None:
    result = prepared.call("run", "--set", "members.0.train.stages.0.step=5")
    assert result.exit_code == 1
    assert "did you mean 'steps'?" in result.output


def test_a_recipe_whose_projections_lack_a_bias_is_refused_before_it_is_trained() -> None:
    with pytest.raises(ValueError, match="both projections need a bias"):
        replace(RECIPE, image_projection=ProjectionConfig())


def test_members_without_equal_shares_and_a_tail_that_nothing_unlocks_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"3 members cannot have equal shares of \[0, 16\] hidden units: choose numbers"
    ):
        replace(RECIPE, members=(MEMBER, MEMBER, MEMBER))
    assert RECIPE.tail is not None
    with pytest.raises(ValueError, match="no stage trains the tail of the image tower"):
        replace(RECIPE.tail, projections=MEMBER)


@pytest.mark.parametrize(
    "options",
    [
        ["--processes", "2"],
        ["--coordinator", "localhost:1"],
        ["--coordinator", "localhost:1", "--processes", "2", "--process", "2"],
    ],
)
def test_processes_without_all_that_joins_them_are_refused(options):
    result = CliRunner().invoke(clipita_train.cli.main, [*options, "sources", "mini"])
    assert result.exit_code == 2
    assert "several processes need --coordinator HOST:PORT" in result.output
