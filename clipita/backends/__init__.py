"""Run the towers of a model, on ONNX Runtime or on JAX."""
