"""A model folder and super images in, embeddings, ranks and answers out."""
