"""Model URIs -> module, preprocessing and classes."""
