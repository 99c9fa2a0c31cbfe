"""List the names of a checkpoint's files, in each layout that is read."""

CONFIG = "config.json"
OPEN_CLIP_CONFIG = "open_clip_config.json"
MODULES = "modules.json"  # lists the folders of a sentence-transformers model's parts
MODEL_CARD = "README.md"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
# Without a tokenizer.json: the files of BERT's, CLIP's and SentencePiece's tokenizers.
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
# The first that is there is fetched, and no other: all hold the same numbers.
WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "flax_model.msgpack",
)
# The "model_type" in transformers' config.json of the models that are read here. A repository may also hold the same
# model in open_clip's form.
MODEL_TYPES = ("vision-text-dual-encoder", "hybrid-clip", "clip", "siglip")
OPEN_CLIP_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
# The file name endings of transformers.js' variants, by the precision that `load` knows them by.
ONNX_SUFFIXES = {"fp32": ("",), "fp16": ("_fp16",), "int8": ("_quantized", "_int8"), "uint8": ("_uint8",)}
ONNX_TOWERS = ("onnx/vision_model", "onnx/text_model")
