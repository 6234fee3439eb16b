"""Where the hub has the released weights that recipes and `wamkit convert` start from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Known:
    """What the recipes look for. repository: of the hub. folder: where recipes look for it; "": nowhere, so that it is
    named. only: the files that are read, as patterns; (): all. about: what it is for."""

    repository: str
    folder: str
    about: str
    only: tuple[str, ...] = ()


UMT5 = ("models_t5_umt5-xxl-enc-bf16.pth", "google/umt5-xxl/*")
KNOWN = {
    "wan2.1": Known(
        "Wan-AI/Wan2.1-T2V-1.3B", "weights/Wan2.1-T2V-1.3B", "Light-WAM: video model, VAE, UMT5",
        ("diffusion_pytorch_model*", "config.json", "Wan2.1_VAE.pth", *UMT5),
    ),
    "wan2.2": Known(
        "Wan-AI/Wan2.2-TI2V-5B", "weights/Wan2.2-TI2V-5B", "Fast-WAM: video model, VAE, UMT5",
        ("diffusion_pytorch_model*", "config.json", "Wan2.2_VAE.pth", *UMT5),
    ),
    "umt5": Known("Wan-AI/Wan2.1-T2V-1.3B", "weights/Wan2.1-T2V-1.3B", "the text encoder alone", UMT5),
    "dinov3": Known("facebook/dinov3-vitb16-pretrain-lvd1689m", "weights/dinov3-vitb16", "LaWAM: features (gated)"),
    "qwen3-vl": Known("Qwen/Qwen3-VL-2B-Instruct", "weights/Qwen3-VL-2B-Instruct", "LaWAM: prior"),
    "light-wam": Known("l1ziang/lightwam-checkpoints", "released/light_wam", "released Light-WAM"),
    "fast-wam": Known("yuantianyuan01/FastWAM", "released/fast_wam", "released Fast-WAM"),
    "lawam-libero": Known("jialei02/lawam_libero_sft_release", "released/lawam_libero", "released LaWAM, LIBERO"),
    "lawam-robotwin": Known("jialei02/lawam_robotwin_sft_release", "released/lawam_robotwin", "LaWAM, RoboTwin"),
    "lawam-pretrain": Known("jialei02/lawam_pretrain", "released/lawam_pretrain", "released LaWAM, pretrained"),
    "lawam-world": Known("jialei02/lawam_lam", "released/lawam_world", "released world model of LaWAM"),
}  # fmt: skip
