"""Rank the photographs of a folder for a sentence: python examples/search_photos.py [SENTENCE [FOLDER]]"""

import sys
from pathlib import Path

import clipita

sentence = sys.argv[1] if len(sys.argv) > 1 else "una tazza di caffè su un tavolo di legno"
folder = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(__file__).parent / "photos"

photos = sorted(folder.glob("*.jpg"))
# All embeddings have length 1, so this product is the cosine of each photograph and the sentence.
cosines = clipita.encode_image(photos) @ clipita.encode_text(sentence)

for index in (-cosines).argsort():
    print(f"{cosines[index]:6.3f}  {photos[index].name}")
