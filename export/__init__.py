"""A CLIP checkpoint in, a model folder (ONNX graphs, tokenizer, model.json) out."""
