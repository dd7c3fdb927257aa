"""The transforms of the published networks: g_a, g_s between pixels and latents, h_a, h_s between y and z.

Every function builds a module whose parameter names are the positions of the published checkpoints. Axes: B
batch, C bands, H W pixels (multiples of 16), N and M latent channels, h = H/16, w = W/16. Pixels are
standardised, (DN - mean) / std per band, and not clamped on either side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from eozip.codecs.terracodec.layers import GDN, AttentionBlock, ResidualBlock, ResidualUnit, conv, deconv


def fp_analysis(bands: int, n: int, m: int) -> nn.Sequential:
    """TEC-FP g_a: [B, C, H, W] > [B, M, h, w] (Balle et al. 2018, arXiv 1802.01436)."""
    return nn.Sequential(conv(bands, n), GDN(n), conv(n, n), GDN(n), conv(n, n), GDN(n), conv(n, m))


def fp_synthesis(bands: int, n: int, m: int) -> nn.Sequential:
    """TEC-FP g_s: [B, M, h, w] > [B, C, H, W]."""
    return nn.Sequential(
        deconv(m, n),
        GDN(n, inverse=True),
        deconv(n, n),
        GDN(n, inverse=True),
        deconv(n, n),
        GDN(n, inverse=True),
        deconv(n, bands),
    )


def elic_analysis(bands: int, n: int, m: int) -> nn.Sequential:
    """TEC-ELIC g_a: [B, C, H, W] > [B, M, h, w] (He et al. 2022, arXiv 2203.10886)."""
    return _analysis(bands, (n, n, n, m), ResidualBlock)


def elic_synthesis(bands: int, n: int, m: int) -> nn.Sequential:
    """TEC-ELIC g_s: [B, M, h, w] > [B, C, H, W]."""
    return _synthesis(bands, (n, n, n, m), ResidualBlock)


def tt_analysis(bands: int, widths: Sequence[int]) -> nn.Sequential:
    """TEC-TT and FlexTEC g_a of one frame, widths of its stages (M last): [B, C, H, W] > [B, M, h, w]."""
    return _analysis(bands, widths, ResidualUnit)


def tt_synthesis(bands: int, widths: Sequence[int]) -> nn.Sequential:
    """TEC-TT and FlexTEC g_s of one frame, `widths` as in `tt_analysis`: [B, M, h, w] > [B, C, H, W]."""
    return _synthesis(bands, widths, ResidualUnit)


def elic_hyper_analysis(n: int, m: int) -> nn.Sequential:
    """TEC-ELIC h_a: y [B, M, h, w] > z [B, N, ceil(h/4), ceil(w/4)]."""
    return nn.Sequential(conv(m, n, 3, 1), nn.ReLU(), conv(n, n), nn.ReLU(), conv(n, n))


def elic_hyper_synthesis(n: int, m: int) -> nn.Sequential:
    """TEC-ELIC h_s: z_hat [B, N, h/4, w/4] > hyper parameters [B, 2M, h, w]."""
    wide = n * 3 // 2
    return nn.Sequential(deconv(n, n), nn.ReLU(), deconv(n, wide), nn.ReLU(), conv(wide, 2 * m, 3, 1))


def _analysis(bands: int, widths: Sequence[int], unit: Callable[[int], nn.Module]) -> nn.Sequential:
    a, b, c, m = widths
    return nn.Sequential(
        conv(bands, a),
        *_three(unit, a),
        conv(a, b),
        *_three(unit, b),
        AttentionBlock(b),
        conv(b, c),
        *_three(unit, c),
        conv(c, m),
        AttentionBlock(m),
    )


def _synthesis(bands: int, widths: Sequence[int], unit: Callable[[int], nn.Module]) -> nn.Sequential:
    a, b, c, m = widths
    return nn.Sequential(
        AttentionBlock(m),
        deconv(m, c),
        *_three(unit, c),
        deconv(c, b),
        AttentionBlock(b),
        *_three(unit, b),
        deconv(b, a),
        *_three(unit, a),
        deconv(a, bands),
    )


def _three(unit: Callable[[int], nn.Module], channels: int) -> list[nn.Module]:
    return [unit(channels) for _ in range(3)]
