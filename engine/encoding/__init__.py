"""A model folder in; embeddings of super images and texts out, by ONNX Runtime."""
