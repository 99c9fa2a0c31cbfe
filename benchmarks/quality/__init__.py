"""The tables of CLIP-Italian's write-up, retrieval and ImageNet, of any models: python -m benchmarks.quality --help"""
