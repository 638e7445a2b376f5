"""Defaults and constants that several rooms share; they cost no import of PyTorch."""

METHOD = "dawn"
# of the demo: this machine alone
HOST, PORT = "127.0.0.1", 7860
# of a benchmark
SIZES = ("600x400", "1920x1080")
ROUNDS, SECONDS = 15, 4.0
# of JPEG and WebP that were of another format
QUALITY = 95
# Pillow's own, 6, takes three times as long for files a tenth smaller (photographs of 1600x1067)
PNG_LEVEL = 1
# of a picture that is taken without being asked for: a telephone's 200 megapixels, and a tenth
MOST_PIXELS = 220_000_000
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601 of red, green and blue, as Pillow converts to grey
