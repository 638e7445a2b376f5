"""Every kind of image in, the same kind out: files, photographs, batches."""
