"""The Wan video model: transformer, codecs, text, checkpoint keys."""
