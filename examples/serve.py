"""An HTTP server on LitServe: python examples/serve.py [METHOD] [PORT]; needs `pip install litserve`.

    curl -F request=@night.jpg http://127.0.0.1:8000/brighten -o bright.jpg

It listens on this machine alone. Requests that come together, and are of one size, go through the network
together. What is no image is answered with 400, and what is larger than 20 MB with 413.
"""

import io
import sys

import litserve
from fastapi import HTTPException, Response, UploadFile
from PIL import Image

import fastllie

MOST_TOGETHER = 4
MOST_BYTES = 20_000_000
MOST_PIXELS = 50_000_000


class Brighten(litserve.LitAPI):
    def __init__(self, method: str = "sci"):
        super().__init__(max_batch_size=MOST_TOGETHER, batch_timeout=0.005, api_path="/brighten")
        self.method = method

    def setup(self, device: str) -> None:
        self.enhancer = fastllie.Enhancer(self.method, device=device, max_pixels=MOST_PIXELS)

    def decode_request(self, request: UploadFile) -> Image.Image:
        try:
            image: Image.Image = Image.open(io.BytesIO(request.file.read()))
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(f"{image.width}x{image.height} pixels are too many")
            image.load()
            if image.mode not in ("L", "LA", "RGB", "RGBA", "P"):
                # one request must not fail those beside it, as floats beyond [0, 1] would
                image = image.convert("RGB")
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise HTTPException(400, f"not an image: {error}") from error
        return image

    def batch(self, inputs: list[Image.Image]) -> list[Image.Image]:
        # images of any size: `Enhancer.batch` puts those of one size together
        return inputs

    def predict(self, x: list[Image.Image]) -> list[Image.Image]:
        return self.enhancer.batch(x)

    def unbatch(self, output: list[Image.Image]) -> list[Image.Image]:
        return output

    def encode_response(self, output: Image.Image) -> Response:
        content = io.BytesIO()
        alpha = output.mode in ("RGBA", "LA", "PA")
        if alpha:
            output.save(content, "PNG", compress_level=1)
        else:
            kept = {key: output.info[key] for key in ("exif", "icc_profile") if key in output.info}
            output.convert("L" if output.mode == "L" else "RGB").save(content, "JPEG", quality=95, **kept)
        return Response(content.getvalue(), media_type="image/png" if alpha else "image/jpeg")


def main(method: str = "sci", port: str = "8000") -> None:
    server = litserve.LitServer(Brighten(method), timeout=60, max_payload_size=MOST_BYTES)
    server.run(host="127.0.0.1", port=int(port), generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    main(*sys.argv[1:])
