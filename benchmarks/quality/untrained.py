"""Measure what clipita-mini's two towers can do without training.

    python -m benchmarks.quality.untrained --root ROOT --work WORK

The method is ConSE (arXiv:1312.5650). The classifier that comes with the image tower finds the ten likeliest ImageNet
classes of a photograph. The text tower embeds the names of these classes, and the photograph's embedding is their mean,
weighted by probability. So this is what a user could run offline, at that size, without clipita-mini. The questions are
those of `clipita-train evaluate development`; the results are written to untrained.md and untrained.json.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import numpy as np
from clipita_train.concepts.projections import unit_rows
from clipita_train.concepts.recipe import load_towers
from clipita_train.data.concepts import load_ontology
from clipita_train.data.photographs.manifest import read_manifest
from clipita_train.evaluate.development import evaluate, markdown
from clipita_train.evaluate.label_sets import IMAGENET_IT, read_label_set
from clipita_train.recipes.mini import RECIPE
from clipita_train.towers.features import encode_texts, locked_image_tower, locked_text_tower
from clipita_train.towers.pretrained import efficientnet_lite

from benchmarks.quality.sets import HERE
from clipita.errors import ImageError
from clipita.images.pixels import load_pixels
from clipita.model import Encoded
from clipita.text.italian import with_article

CLASSES = 10  # likeliest classes of a photograph, whose names are averaged; as in the paper


class Untrained:
    """The part of the interface of `clipita.Model` that the questions need."""

    embed_dim, logit_scale, logit_bias = 384, 10.0, None

    def __init__(self) -> None:
        towers = load_towers(RECIPE)
        _, imagenet = efficientnet_lite(RECIPE.lite_variant)
        self._preprocessing, self._tokenizer = towers.config.preprocessing, towers.tokenizer
        self._image = locked_image_tower(towers.config, towers.image)
        self._text = locked_text_tower(towers.config, towers.text, towers.tokenizer)
        self._kernel, self._bias = imagenet.classifier_kernel, imagenet.classifier_bias
        names = read_label_set(IMAGENET_IT)
        ordered = [label for _, label in sorted(zip(names.ids, names.labels, strict=True))]
        texts = encode_texts(self._text, ordered, self._tokenizer)
        self._mean = texts.mean(0)  # all embeddings of e5 point much the same way; what is left says what a text means
        self._names = unit_rows(texts - self._mean)  # (1000, E), in the classifier's order
        self.fingerprint = f"conse-{self._image.fingerprint}"

    def label_bank(self, labels: Sequence[str]) -> Any:
        """Embed labels with their articles."""
        texts = encode_texts(self._text, [with_article(label) for label in labels], self._tokenizer)
        return SimpleNamespace(embeddings=unit_rows(texts - self._mean))

    def iter_encode_image(self, paths: Iterable[Path]) -> Iterator[Encoded]:
        """Embed photographs one by one; an unreadable one has its error instead."""
        for path in paths:
            try:
                pixels = load_pixels(path, self._preprocessing, name=repr(str(path)))
            except ImageError as error:
                yield Encoded(str(path), None, error)
                continue
            logits = self._kernel @ self._image(pixels=pixels[None])[0] + self._bias
            likeliest = np.argsort(-logits)[:CLASSES]
            shares = np.exp(logits[likeliest] - logits[likeliest[0]])
            yield Encoded(str(path), unit_rows(shares[None] @ self._names[likeliest])[0].astype(np.float32), None)


@click.command()
@click.option("--root", type=click.Path(path_type=Path), required=True, help="Holds the clones, as OWNER/NAME.")
@click.option("--work", type=click.Path(path_type=Path), required=True, help="The folder with the manifest of mini.")
@click.option("--cache", type=click.Path(path_type=Path), help="Embeddings are kept here.")
def main(root: Path, work: Path, cache: Path | None) -> None:
    """Ask the questions, and write the scores."""
    model: Any = Untrained()
    scores = evaluate(model, read_manifest(work / "manifest.jsonl"), root, load_ontology(), cache)
    (HERE / "untrained.md").write_text(markdown(scores), encoding="utf-8")
    found = {"towers": model.fingerprint, "classes": CLASSES, "scores": [score.to_json() for score in scores]}
    (HERE / "untrained.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    click.echo(markdown(scores))


if __name__ == "__main__":
    main()
