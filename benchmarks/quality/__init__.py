"""Measure models as CLIP-Italian's write-up did, by retrieval and on ImageNet.

python -m benchmarks.quality --help
"""
