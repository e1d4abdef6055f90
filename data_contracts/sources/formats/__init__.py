"""What a row means, one small file per format: how to recognise it, read it and write it."""
