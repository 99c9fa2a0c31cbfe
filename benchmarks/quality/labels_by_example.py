"""Compare labels by example with labels in words: python -m benchmarks.quality.labels_by_example FOLDER [EXAMPLES].

FOLDER has a folder for each label, named by the Italian word, with more photographs than EXAMPLES (3). Several times,
EXAMPLES photographs of each label are drawn as its examples, and the labels of all others are asked for: top-1 among
the labels, the mean over them, with a bootstrap interval over labels; and what `Index.label` would give at thresholds.
"""

import sys
from pathlib import Path

import numpy as np

DRAWS, RESAMPLED = 8, 10_000
THRESHOLDS = (0.1, 0.2, 0.5, 0.7, 0.8)


def main(folder: Path, count: int) -> None:
    """Print the table."""
    import clipita
    from clipita.search.labels.examples import examples_bank, read_examples
    from clipita.search.presence import background_phrases

    model = clipita.load()
    background = model.encode_text(background_phrases())
    photos = {label: files for label, files in read_examples(folder).items() if len(files) > count}
    labels = list(photos)
    embeddings = {label: model.encode_image(files) for label, files in photos.items()}
    usual_photo, usual_sentence = (
        np.concatenate(list(embeddings.values())).mean(axis=0),
        background.mean(axis=0),
    )
    random = np.random.default_rng(0)
    ways = ("words", "examples", "both")
    right = {way: np.zeros((DRAWS, len(labels))) for way in ways}
    own: dict[str, list[float]] = {way: [] for way in ways}
    others: dict[str, list[float]] = {way: [] for way in ways}
    for draw in range(DRAWS):
        chosen = {label: random.permutation(len(photos[label])) for label in labels}
        examples = {label: [photos[label][int(index)] for index in chosen[label][:count]] for label in labels}
        banks = {
            "words": model.label_bank(labels),
            "examples": examples_bank(model, examples, usual_sentence=usual_sentence, usual_photo=usual_photo),
            "both": examples_bank(
                model, examples, words=labels, usual_sentence=usual_sentence, usual_photo=usual_photo
            ),
        }
        for way, bank in banks.items():
            order = [bank.labels.index(label) for label in labels]
            for place, label in enumerate(labels):
                rest = embeddings[label][chosen[label][count:]]
                cosines = rest @ bank.embeddings[order].T
                right[way][draw, place] = (cosines.argmax(axis=1) == place).mean()
                sums = np.exp(model.logit_scale * rest @ background.T).sum(axis=1, keepdims=True)
                share = 1 / (1 + sums * np.exp(-model.logit_scale * cosines))
                own[way] += share[:, place].tolist()
                others[way] += np.delete(share, place, axis=1).ravel().tolist()
    drawn = random.integers(0, len(labels), (RESAMPLED, len(labels)))
    total = sum(map(len, photos.values()))
    print(f"{len(labels)} labels, {total} photographs, {count} examples each, {DRAWS} draws\n")
    print("| | top-1 | more than words |", *(f" given at {t:g}, wrongly |" for t in THRESHOLDS), sep="")
    print("|---|---|---|" + "---|" * len(THRESHOLDS))
    words = right["words"].mean(axis=0)
    for way in ways:
        each = right[way].mean(axis=0)
        given = [
            f"{np.mean(np.array(own[way]) >= t):.0%}, {1e4 * np.mean(np.array(others[way]) >= t):.1f} in 10,000"
            for t in THRESHOLDS
        ]
        print(f"| {way} | {_interval(each, drawn)} | {_interval(each - words, drawn)} | {' | '.join(given)} |")


def _interval(each: np.ndarray, drawn: np.ndarray) -> str:
    low, high = np.quantile(each[drawn].mean(axis=1), (0.025, 0.975))
    return f"{each.mean():.1%} [{low:.1%}, {high:.1%}]"


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) == 3 else 3)
