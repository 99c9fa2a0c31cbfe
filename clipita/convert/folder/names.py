"""What the files of a checkpoint are called, in each layout that is read."""

CONFIG = "config.json"
OPEN_CLIP_CONFIG = "open_clip_config.json"
MODULES = "modules.json"  # of sentence-transformers: the folders that its parts are in
MODEL_CARD = "README.md"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
# Where there is no tokenizer.json: what the tokenizers of BERT, of CLIP, and of SentencePiece are kept in.
OLDER_TOKENIZER_FILES = (
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
    "tokenizer.model",
    "sentencepiece.model",
)
OTHER_FILES = ("preprocessor_config.json", "processor_config.json", "sentence_bert_config.json")
# The first that is there is the one that is fetched: these are the same numbers over and over.
WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "flax_model.msgpack",
)
# What transformers' config.json calls the models that are read here. A repository may hold one in open_clip's form too.
MODEL_TYPES = ("vision-text-dual-encoder", "hybrid-clip", "clip", "siglip")
OPEN_CLIP_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
# How transformers.js calls the variants of its exports, by what `load` calls them.
ONNX_SUFFIXES = {"fp32": ("",), "fp16": ("_fp16",), "int8": ("_quantized", "_int8"), "uint8": ("_uint8",)}
ONNX_TOWERS = ("onnx/vision_model", "onnx/text_model")
