"""A small OPUS-MT and a small M2M100 in transformers' files, trained for seconds to translate word by word."""

import json
import random
import unittest.mock
from pathlib import Path

from transformers import (
    M2M100Config,
    M2M100ForConditionalGeneration,
    M2M100Tokenizer,
    MarianConfig,
    MarianMTModel,
    MarianTokenizer,
)

from support.reference import sentencepiece, torch

WORDS = {
    "cat": "gatto", "dog": "cane", "house": "casa", "tree": "albero", "street": "strada", "water": "acqua",
    "near": "vicino", "red": "rosso", "small": "piccolo", "old": "vecchio",
}  # fmt: skip
SPECIAL = ("<unk>", "<s>", "</s>")


def sentences(count: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(list(WORDS), k=draw.randint(1, 4))) for _ in range(count)]


def translated(sentence: str) -> str:
    return " ".join(WORDS[word] for word in sentence.split())


def train_pieces(path: Path, lines: list[str]) -> list[str]:
    """The pieces of a SentencePiece model that is written to the path."""
    prefix = path.with_name(f"{path.name}.trained")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_prefix=str(prefix), vocab_size=60, hard_vocab_limit=False, minloglevel=2
    )
    prefix.with_name(f"{prefix.name}.model").rename(path)
    prefix.with_name(f"{prefix.name}.vocab").unlink()
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(path))
    return [pieces.id_to_piece(i) for i in range(pieces.get_piece_size()) if pieces.id_to_piece(i) not in SPECIAL]


SIZES = {
    "d_model": 64,
    "dropout": 0.0,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 128,
    "decoder_ffn_dim": 128,
    "max_position_embeddings": 512,
    "scale_embedding": True,
}


def opus_mt(folder: Path) -> tuple[MarianMTModel, MarianTokenizer]:
    """English to Italian, in the files of Helsinki-NLP's models."""
    folder.mkdir(parents=True)
    english = sentences(2000, 0)
    pieces = dict.fromkeys(train_pieces(folder / "source.spm", english))
    pieces |= dict.fromkeys(train_pieces(folder / "target.spm", [translated(line) for line in english]))
    vocabulary = ["</s>", "<unk>", *pieces, "<pad>"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(vocabulary)}))
    files = [str(folder / name) for name in ("source.spm", "target.spm", "vocab.json")]
    tokenizer = MarianTokenizer(*files, source_lang="en", target_lang="it")
    pad = len(vocabulary) - 1
    torch.manual_seed(0)
    config = MarianConfig(
        vocab_size=len(vocabulary),
        activation_function="swish",
        pad_token_id=pad,
        eos_token_id=0,
        forced_eos_token_id=0,
        decoder_start_token_id=pad,
        bad_words_ids=[[pad]],
        **SIZES,
    )
    return trained(MarianMTModel(config), tokenizer, english, folder)


def m2m100(folder: Path) -> tuple[M2M100ForConditionalGeneration, M2M100Tokenizer]:
    """Many languages, of which it knows two, in the files of facebook's models."""
    folder.mkdir(parents=True)
    english = sentences(2000, 0)
    both = english + [translated(line) for line in english]
    vocabulary = ["<s>", "<pad>", "</s>", "<unk>", *train_pieces(folder / "sentencepiece.bpe.model", both)]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(vocabulary)}))
    tokenizer = M2M100Tokenizer(
        vocab_file=str(folder / "vocab.json"),
        spm_file=str(folder / "sentencepiece.bpe.model"),
        src_lang="en",
        tgt_lang="it",
    )
    torch.manual_seed(0)
    size = max(tokenizer.lang_token_to_id.values()) + 1 + tokenizer.num_madeup_words
    config = M2M100Config(vocab_size=size, **SIZES)
    return trained(M2M100ForConditionalGeneration(config), tokenizer, english, folder)


def convert(folder: Path, files: list[str], out: Path) -> None:
    """To CTranslate2's format. Its 4.8 does not find M2M100's languages in a tokenizer of transformers 5."""
    from ctranslate2.converters import TransformersConverter
    from ctranslate2.converters.transformers import M2M100Loader

    def with_languages(loader, model, tokenizer):
        known = list(tokenizer.encoder) + list(tokenizer.lang_token_to_id)
        return known + [f"madeupword{i}" for i in range(model.config.vocab_size - len(known))]

    with unittest.mock.patch.object(M2M100Loader, "get_vocabulary", with_languages):
        TransformersConverter(str(folder), copy_files=files).convert(str(out))


def trained(model, tokenizer, english: list[str], folder: Path, steps: int = 150):
    """The model after some steps on the sentences, written to the folder with its tokenizer."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    draw = random.Random(0)
    model.train()
    for step in range(steps):
        chosen = draw.sample(english, 32)
        target = [translated(line) for line in chosen]
        batch = tokenizer(chosen, text_target=target, return_tensors="pt", padding=True)
        labels = batch["labels"].masked_fill(batch["labels"] == tokenizer.pad_token_id, -100)
        loss = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * min(1, (step + 1) / 50) * (1 - step / steps)
        optimizer.step()
        with torch.no_grad():  # as in published models; the output layer, which shares it, would change it
            model.get_input_embeddings().weight[tokenizer.pad_token_id] = 0
    model.eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model, tokenizer
