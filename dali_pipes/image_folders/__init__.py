"""Super images in, JPEG folders out, and back."""
