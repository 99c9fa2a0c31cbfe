"""Build the ONNX graphs of towers, and check graphs that come from elsewhere."""
