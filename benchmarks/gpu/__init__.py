"""A machine with a card in, proof that GridCLIP's GPU path is right and fast on it out: `gridclip bench gpu`."""
