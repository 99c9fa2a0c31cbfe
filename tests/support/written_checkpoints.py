"""Write the oracles' checkpoints with a tokenizer, as they lie in folders that people have."""

import json
from collections.abc import Callable
from pathlib import Path

import tokenizers
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing

from support.oracles import EOS, Oracle

WORDS = ["un", "una", "foto", "di", "cane", "gatto", "nero", "mare", "è"]
TEXTS = ["un gatto nero", "una foto di un cane", "mare", "un mare di foto di un gatto nero è una foto"]


def tokenizer(oracle: Oracle) -> tokenizers.Tokenizer:
    """Whole words from id 5 on, an end, and padding, where the tower expects them."""
    pad, end = oracle.pad, EOS if oracle.ends else 4
    vocabulary = {"<unk>": 3, "<s>": 2, **{word: 5 + index for index, word in enumerate(WORDS)}}
    vocabulary |= {"</s>": end} | ({"<pad>": pad} if pad != end else {})
    made = tokenizers.Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = WhitespaceSplit()
    made.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", end)])
    return made


def written_as(write: Callable[[Path], Oracle], folder: Path) -> Oracle:
    """A checkpoint with all that belongs to it."""
    oracle = write(folder)
    made = tokenizer(oracle)
    (oracle.folder / "tokenizer.json").write_text(made.to_str())
    pad = "<pad>" if made.token_to_id("<pad>") is not None else "</s>"
    settings = {"pad_token": pad, "eos_token": "</s>", "bos_token": "<s>", "unk_token": "<unk>"}
    (oracle.folder / "tokenizer_config.json").write_text(json.dumps(settings))
    for name in ("vocab.txt", "special_tokens_map.json"):
        (oracle.folder / name).unlink(missing_ok=True)
    return oracle
