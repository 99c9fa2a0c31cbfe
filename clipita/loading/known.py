"""List models on the hub that read Italian, with their licenses.

A model need not be in the list: any other in one of their layouts loads as well.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class KnownModel:
    """A model in the list.

    Attributes:
        name: Its name on the Hugging Face hub.
        license: The license of its weights, as its model card states it.
        about: A description in one line.
        images: The repository with its image tower, if it is a text tower that was trained to match one.
    """

    name: str
    license: str
    about: str
    images: str | None = None


KNOWN: tuple[KnownModel, ...] = (
    KnownModel("clip-italian/clip-italian", "gpl-3.0", "CLIP-Italian: Italian BERT with CLIP's ViT-B/32"),
    KnownModel("laion/CLIP-ViT-B-32-xlm-roberta-base-laion5B-s13B-b90k", "mit", "OpenCLIP: XLM-R base with ViT-B/32"),
    KnownModel(
        "laion/CLIP-ViT-H-14-frozen-xlm-roberta-large-laion5B-s13B-b90k", "mit", "OpenCLIP: XLM-R large with ViT-H/14"
    ),
    KnownModel("google/siglip-base-patch16-256-multilingual", "apache-2.0", "SigLIP, multilingual, ViT-B/16"),
    KnownModel("google/siglip2-base-patch32-256", "apache-2.0", "SigLIP2, multilingual, ViT-B/32"),
    KnownModel("google/siglip2-base-patch16-256", "apache-2.0", "SigLIP2, multilingual, ViT-B/16"),
    KnownModel("google/siglip2-large-patch16-256", "apache-2.0", "SigLIP2, multilingual, ViT-L/16"),
    KnownModel("visheratin/nllb-siglip-mrl-base", "cc-by-nc-4.0", "NLLB's text encoder with SigLIP's ViT-B/16"),
    KnownModel(
        "sentence-transformers/clip-ViT-B-32-multilingual-v1",
        "apache-2.0",
        "mCLIP: multilingual DistilBERT taught to fit CLIP's ViT-B/32",
        images="sentence-transformers/clip-ViT-B-32",
    ),
    KnownModel("openai/clip-vit-base-patch32", "mit", "OpenAI's CLIP ViT-B/32; reads English"),
    KnownModel("openai/clip-vit-large-patch14", "mit", "OpenAI's CLIP ViT-L/14; reads English"),
)


def known_model(name: str) -> KnownModel | None:
    """Return the model of this name, or None if it is not in the list."""
    return next((known for known in KNOWN if known.name == name), None)


def restriction(license: str) -> str | None:
    """Return what a license demands of users, for the two kinds that may surprise them; None for all others."""
    lowered = license.lower()
    if lowered.startswith(("gpl", "agpl")):
        return "whoever passes on a work that contains them has to do so under the same license"
    if "-nc" in lowered or "non-commercial" in lowered or "noncommercial" in lowered:
        return "they may not be used commercially"
    return None
