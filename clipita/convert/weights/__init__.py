"""Quantize weights, and write them to `weights.safetensors`."""
