"""Choose the templates in which labels are best asked for, on one half of the photographs, and judge them on the other.

Templates are added one by one. Each time, the template is added that lowers the cross-entropy most when its embedding
is averaged with the others. This ends when the gain is no more than twice its standard error over photographs. Top-1
would be too coarse to choose by: it keeps rising on the half that chooses while it falls on the other.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

import clipita
from clipita.system.arrays import Array
from clipita.text.italian import in_template
from clipita_train.data.concepts import Ontology
from clipita_train.data.photographs.example import Example
from clipita_train.evaluate.embedding_cache import embed_texts
from clipita_train.evaluate.tasks import embed_sources

SOURCES = ("tiny_imagenet", "caltech101")  # each weighs the same

CANDIDATES = (
    "{}", "una foto di {}", "un'immagine di {}", "foto di {}", "una fotografia di {}", "la foto di {}",
    "una bella foto di {}", "una brutta foto di {}", "una foto sfocata di {}", "una foto a bassa risoluzione di {}",
    "una foto luminosa di {}", "una foto scura di {}", "una foto a colori di {}", "una foto in bianco e nero di {}",
    "una foto ravvicinata di {}", "una foto da vicino di {}", "una foto da lontano di {}",
    "una foto ritagliata di {}", "un primo piano di {}", "{} in primo piano", "{} sullo sfondo", "{} all'aperto",
    "{} al chiuso", "un dettaglio di {}", "un ritratto di {}", "un esempio di {}", "una scena con {}",
    "nella foto c'è {}", "questa foto mostra {}", "si vede {}", "ecco {}", "questo è {}", "ho fotografato {}",
    "guarda, {}", "una foto dell'oggetto: {}", "un disegno di {}", "un dipinto di {}", "un giocattolo a forma di {}",
)  # fmt: skip


@dataclass(frozen=True)
class DevelopmentSet:
    """A development set with its texts.

    Attributes:
        images: (N, E) embeddings.
        shown: (N,) integers, what each photograph shows.
        chooses: (N,) bool, True for the half that chooses.
        texts: (T, K, E) embeddings of each label in each template.
    """

    images: Array
    shown: Array
    chooses: Array
    texts: Array


@dataclass(frozen=True)
class TemplateChoice:
    """Some templates, with their cross-entropy and top-1 on each half, as means over the sets."""

    templates: tuple[str, ...]
    loss_chosen_on: float
    loss_held_out: float
    top1_chosen_on: float
    top1_held_out: float

    def to_json(self) -> dict[str, object]:
        """Return the fields."""
        return asdict(self)


def tasks(
    model: clipita.Model, examples: Sequence[Example], root: Path, ontology: Ontology, cache: Path
) -> list[DevelopmentSet]:
    """Embed the development sets of `SOURCES` and all texts.

    Args:
        model: The model.
        examples: The examples of a manifest.
        root: The folder that their paths are relative to.
        ontology: The concepts.
        cache: A folder to keep embeddings in.

    Raises:
        FileNotFoundError: A source has no photograph.
    """
    wanted = [e for e in examples if e.source in SOURCES]
    found = embed_sources(model, wanted, root, ontology, cache)
    if missing := set(SOURCES) - set(found):
        raise FileNotFoundError(f"no development photograph of {sorted(missing)} is in the manifest")
    sets = []
    for source in found.values():
        classes, shown = np.unique(source.shown, return_inverse=True)
        labels = [ontology.concepts[c].label for c in classes]
        texts = embed_texts(model, [in_template(t, label) for t in CANDIDATES for label in labels], cache)
        sets.append(
            DevelopmentSet(source.images, shown, source.chooses, texts.reshape(len(CANDIDATES), len(labels), -1))
        )
    return sets


def choose(sets: Sequence[DevelopmentSet], logit_scale: float) -> list[TemplateChoice]:
    """Return the steps of the choice, from one template on; the last step has the chosen templates."""
    chosen: list[int] = []
    before: list[Array] | None = None
    steps: list[TemplateChoice] = []
    while len(chosen) < len(CANDIDATES):
        losses = {
            i: [_losses(task, [*chosen, i], logit_scale, task.chooses) for task in sets]
            for i in range(len(CANDIDATES))
            if i not in chosen
        }
        best = min(losses, key=lambda i: (_mean(losses[i]), i))
        if before is not None:
            gains = [old - new for old, new in zip(before, losses[best], strict=True)]
            error = float(np.sqrt(sum(gain.var() / len(gain) for gain in gains))) / len(gains)
            if _mean(gains) <= 2 * error:
                break
        chosen.append(best)
        before = losses[best]
        steps.append(measure(sets, logit_scale, chosen))
    return steps


def measure(sets: Sequence[DevelopmentSet], logit_scale: float, chosen: Sequence[int]) -> TemplateChoice:
    """Return the scores of the candidates with these numbers together."""
    halves = [[(task, task.chooses if first else ~task.chooses) for task in sets] for first in (True, False)]
    losses = [_mean([_losses(task, chosen, logit_scale, half) for task, half in both]) for both in halves]
    top1 = [_mean([_right(task, chosen, half) for task, half in both]) for both in halves]
    return TemplateChoice(tuple(CANDIDATES[i] for i in chosen), *losses, *top1)


def markdown(steps: Sequence[TemplateChoice], others: Sequence[TemplateChoice]) -> str:
    """Return a table of the steps, and of other choices of templates."""
    lines = [
        f"Chosen from {len(CANDIDATES)} on one half of the development photographs of {' and '.join(SOURCES)}, each",
        "set weighing the same; judged on the other half.",
        "",
        "| templates | cross-entropy, choosing half | other half | top-1, choosing half | other half |",
        "|---|---|---|---|---|",
    ]
    for step in (*steps, *others):
        few = len(step.templates) <= 4
        name = ", ".join(f"“{t}”" for t in step.templates) if few else f"all {len(step.templates)}"
        lines.append(
            f"| {name} | {step.loss_chosen_on:.4f} | {step.loss_held_out:.4f} "
            f"| {step.top1_chosen_on:.2%} | {step.top1_held_out:.2%} |"
        )
    return "\n".join(lines) + "\n"


def _cosines(task: DevelopmentSet, chosen: Sequence[int], half: Array) -> Array:
    labels = task.texts[list(chosen)].mean(0)
    return task.images[half] @ (labels / np.linalg.norm(labels, axis=1, keepdims=True)).T


def _losses(task: DevelopmentSet, chosen: Sequence[int], logit_scale: float, half: Array) -> Array:
    """Return the cross-entropies (N,) of the photographs of one half."""
    logits = logit_scale * _cosines(task, chosen, half)
    logits -= logits.max(1, keepdims=True)
    return np.log(np.exp(logits).sum(1)) - logits[np.arange(len(logits)), task.shown[half]]


def _right(task: DevelopmentSet, chosen: Sequence[int], half: Array) -> Array:
    return _cosines(task, chosen, half).argmax(1) == task.shown[half]


def _mean(each: Sequence[Array]) -> float:
    return float(np.mean([values.mean() for values in each]))
