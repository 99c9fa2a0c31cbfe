"""Small sources of real photographs in three formats, with everything in them that a build has to tell apart."""

import io
import json
import tarfile
from pathlib import Path

from clipita_train.data.builder.recipe import DataRecipe, Evaluation, Rules, Source
from PIL import Image

from support.reference import skimage

CAPTIONS = {
    "astronaut": ["Un'astronauta sorride davanti a una bandiera", "Ritratto di una donna in tuta arancione"],
    "chelsea": ["Un gatto tigrato guarda verso l'obiettivo"],
    "coffee": ["Una tazzina di caffè su un tavolo di legno", "DSC_0042.JPG"],
    "rocket": ["Un razzo sulla rampa di lancio all'alba"],
    "camera": ["Un uomo fotografa con il treppiede in un prato"],
    "coins": ["Alcune monete antiche disposte in file"],
    "hubble_deep_field": ["Migliaia di galassie lontane nello spazio profondo"],
    "immunohistochemistry": ["Un tessuto visto al microscopio, con le cellule colorate di blu e marrone"],
    "retina": ["Il fondo di un occhio umano fotografato da un medico"],
}

RECIPE = DataRecipe(
    "prova",
    (
        Source("righe", "json_lines", ("righe/*.jsonl",), images="righe", licence="CC0"),
        Source("cartella", "sidecars", ("cartella",), licence="CC BY 4.0", rules=Rules(copies=2)),
        Source("tar", "web_dataset", ("tar/*.tar",), licence="CC0"),
    ),
    (Evaluation("giudizio", "giudizio.jsonl", images="giudizio"),),
    validation_share=0.5,
    chunk_rows=3,
    shard_records=4,
)


def picture(name: str) -> Image.Image:
    """One of scikit-image's photographs, small."""
    found = Image.fromarray(getattr(skimage.data, name)()).convert("RGB")
    found.thumbnail((160, 160))
    return found


def jpeg(image: Image.Image, quality: int = 90) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def write_sources(root: Path) -> None:
    """What `RECIPE` reads, below `root`."""
    for folder in ("righe", "cartella", "tar", "giudizio"):
        (root / folder).mkdir(parents=True)
    _lines(root / "righe")
    _folder(root / "cartella")
    _tar(root / "tar" / "a.tar")
    (root / "giudizio" / "razzo.jpg").write_bytes(jpeg(picture("rocket").resize((90, 90)), 60))
    captions = ["Un razzo pronto a partire", "Il fondo di un occhio umano, fotografato da un medico!"]
    line = {"image_path": "razzo.jpg", "captions": captions}
    (root / "giudizio.jsonl").write_text(json.dumps(line) + "\n")


def _lines(folder: Path) -> None:
    lines = []
    for name in ("astronaut", "coffee", "rocket", "camera", "retina"):
        (folder / f"{name}.jpg").write_bytes(jpeg(picture(name)))
        lines.append({"image_path": f"{name}.jpg", "captions": CAPTIONS[name]})
    whole = (folder / "camera.jpg").read_bytes()
    (folder / "half.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "page.jpg").write_text("<html>404</html>")
    (folder / "strip.jpg").write_bytes(jpeg(picture("coins").resize((600, 60))))
    (folder / "tiny.jpg").write_bytes(jpeg(picture("coins").resize((20, 20))))
    for name in ("half", "page", "strip", "tiny", "gone"):
        lines.append({"image_path": f"{name}.jpg", "captions": ["Una foto che non si può usare"]})
    lines.append({"image_path": "coffee.jpg", "captions": ["Una tazzina di caffè, ancora"]})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "a.jsonl").write_text(text + "{broken\n")


def _folder(folder: Path) -> None:
    (folder / "astronauta.jpg").write_bytes(
        jpeg(picture("astronaut").resize((100, 100)), 70)
    )  # a copy, of another size
    (folder / "astronauta.txt").write_text("Una donna in tuta spaziale sorride")
    for number, name in enumerate(("coins", "hubble_deep_field", "immunohistochemistry")):
        (folder / f"{number}.png").write_bytes(jpeg(picture(name)))
        (folder / f"{number}.txt").write_text("Una bella immagine da guardare\n" + "\n".join(CAPTIONS[name]))
    (folder / "inglese.jpg").write_bytes(jpeg(picture("chelsea").rotate(90)))
    (folder / "inglese.txt").write_text("A tabby cat is looking straight into the camera of its owner\n")
    (folder / "muto.jpg").write_bytes(jpeg(picture("chelsea")))


def _tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        for name in ("chelsea", "coffee"):
            files = {"jpg": jpeg(picture(name)), "txt": CAPTIONS[name][0].encode()}
            for suffix, data in files.items():
                member = tarfile.TarInfo(f"{name}.{suffix}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
