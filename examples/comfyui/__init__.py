"""A node for ComfyUI: copy this folder into `custom_nodes/`, and install fastllie where ComfyUI runs."""

from typing import Any

import torch

import fastllie


class BrightenWithFastllie:
    """Brightens images, on ComfyUI's own device; found under image/fastllie."""

    CATEGORY = "image/fastllie"
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "brighten"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        share = {"min": 0.0, "max": 1.0, "step": 0.05}
        return {
            "required": {
                "image": ("IMAGE",),
                "method": (fastllie.list_methods(), {"default": "dawn"}),
                "strength": ("FLOAT", {"default": 1.0, **share}),
            },
            "optional": {
                # a file of weights, a variant's name, or hf://owner/name; empty is the default
                "weights": ("STRING", {"default": ""}),
            },
        }

    def brighten(
        self, image: torch.Tensor, method: str, strength: float, weights: str = ""
    ) -> tuple[torch.Tensor]:
        # ComfyUI's images are [B, H, W, C] in [0, 1]; what lies beyond is an error to fastllie
        pixels = image.clamp(0, 1).movedim(-1, 1)
        device = _device()
        result = fastllie.enhance(
            pixels[:, :3].to(device), method, weights=weights or None, strength=strength
        )
        # an alpha channel stays as it is
        result = torch.cat((result.to(pixels), pixels[:, 3:]), 1)
        return (result.movedim(1, -1).contiguous(),)


def _device() -> torch.device:
    from comfy import model_management

    return torch.device(model_management.get_torch_device())


NODE_CLASS_MAPPINGS = {"BrightenWithFastllie": BrightenWithFastllie}
NODE_DISPLAY_NAME_MAPPINGS = {"BrightenWithFastllie": "Brighten (fastllie)"}
