"""Embed the photographs of a folder into one file: python examples/embed_folder.py [FOLDER [FILE.npz]]

`clipita embed` does the same, and also goes on where it was stopped, looks into folders below, and writes Parquet.
"""

import sys
from pathlib import Path

import numpy as np

import clipita

folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "photos"
output = Path(sys.argv[2]) if len(sys.argv) > 2 else Path("photos.npz")

model = clipita.load()
keys: list[str] = []
embeddings: list[np.ndarray] = []
for key, embedding, error in model.iter_encode_image(sorted(folder.glob("*.jpg"))):
    if embedding is None:
        print(error, file=sys.stderr)
    else:
        keys.append(Path(key).name)
        embeddings.append(embedding)

# Embeddings of two models do not mix, so the file says whose they are.
np.savez(output, keys=keys, embeddings=np.array(embeddings), fingerprint=model.fingerprint)
print(f"{output}: {len(keys)} photographs, {model.embed_dim} numbers each")
