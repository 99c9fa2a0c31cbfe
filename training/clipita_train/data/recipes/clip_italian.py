"""The 1.4 million pairs of CLIP-Italian (arXiv:2108.08688), built from the files that its four sources publish.

      clipita-train data build clip_italian --root SOURCES --out clip-italian-data --contact you@example.org

      SOURCES/wit/wit_v1.train.all-0000{0..9}-of-00010.tsv.gz                google-research-datasets/wit
      SOURCES/mscoco-it/captions_ita_trainingset_{train,val}2014.json.gz     crux82/mscoco-it
      SOURCES/mscoco-it/captions_ita_{devset,testset}_{un,}validated.json.gz
      SOURCES/coco/{train,val}2014/                                          cocodataset.org
      SOURCES/cc/Train_GCC-training.tsv                                     google-research-datasets/conceptual-captions
      SOURCES/foto-del-giorno/captions.jsonl, and images/ beside it          the photographs collected from ilpost.it

Photographs and captions of MSCOCO-IT's development and test sets are left out. The original did not drop copies, and
filtered only the captions of WIT, by their share of proper nouns.
"""

from clipita_train.data.builder.recipe import DataRecipe, Evaluation, Rules, Source
from clipita_train.data.pairs.engines import EngineSettings

RECIPE = DataRecipe(
    name="clip-italian",
    sources=(
        Source(
            "mscoco_it",
            "mscoco_it",
            ("mscoco-it/captions_ita_trainingset_*.json.gz",),
            images="coco",
        ),
        Source(
            "foto_del_giorno",
            "json_lines",
            ("foto-del-giorno/captions.jsonl",),
            images="foto-del-giorno/images",
            licence="rights reserved by their owners",
        ),
        Source("wit", "wit", ("wit/wit_v1.train.all-*.tsv.gz",), rules=Rules(min_side=100, copies=50, propn_share=0.8)),
        Source(
            "conceptual",
            "conceptual_3m",
            ("cc/Train_GCC-training.tsv",),
            language="en",
            translated=True,
            rules=Rules(min_side=100, copies=50),
        ),
    ),
    translation=EngineSettings("deepl"),  # or EngineSettings("ctranslate2", model="opus-mt-en-it")
    evaluation=tuple(
        Evaluation(f"mscoco_it_{name}", f"mscoco-it/captions_ita_{name}.json.gz", images="coco")
        for name in ("devset_validated", "devset_unvalidated", "testset_validated", "testset_unvalidated")
    ),
)
