"""Say what a photograph shows: python examples/label_photo.py [IMAGE [LABEL...]]"""

import sys
from pathlib import Path

import clipita

image = sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "photos" / "gatto.jpg"
labels = sys.argv[2:] or ["gatto", "cane", "cavallo", "tazza di caffè", "razzo", "astronauta"]

for label, score in clipita.zero_shot(image, labels):
    print(f"{score:6.1%}  {label}")
