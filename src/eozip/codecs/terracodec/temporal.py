"""TEC-TT and FlexTEC as whole models: frame transforms, token model, dequantiser, under the published names.

Everything works on batches of stacks with any number of dates, one included; `reconstruct` takes any H x W.
Three ways through a frame share the same pieces: `estimate` (all tokens known, one parallel pass), `forecast`
(FlexTEC, the first k tokens sent) and `inpaint` (cells under cloud forecast, the others known).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from eozip import hub
from eozip.codecs.terracodec.common import pad
from eozip.codecs.terracodec.dequantiser import Dequantiser, PadToken
from eozip.codecs.terracodec.transformer import TOKENS, WINDOW, Prediction, TokenModel
from eozip.codecs.terracodec.transforms import tt_analysis, tt_synthesis
from eozip.entropy.gaussian import bits, grid_likelihood
from eozip.errors import WeightsError


@dataclass(frozen=True)
class _Frame:
    """One frame of a stack after the model.

    Attributes:
        y_hat: Quantised latent [B, M, h, w], integers; forecasts where nothing was sent.
        dequantised: What the synthesis receives, [B, M, h, w].
        likelihood: Of every token that was sent, [n, k, M] in coding order (k = 16 unless fewer were sent).
    """

    y_hat: Tensor
    dequantised: Tensor
    likelihood: Tensor

    @property
    def bits(self) -> Tensor:
        """Estimated bits, a scalar."""
        return bits(self.likelihood)


class _Transform(nn.Module):
    """g_a and g_s of single frames."""

    def __init__(self, bands: int, widths: tuple[int, int, int, int]):
        super().__init__()
        self.analysis_transform = nn.ModuleDict({"transforms": tt_analysis(bands, widths)})
        self.synthesis_transform = nn.ModuleDict({"transforms": tt_synthesis(bands, widths)})


_Quantise = Callable[
    [Tensor, Tensor], tuple[Tensor, Prediction]
]  # (tokens of y, context) > tokens of y_hat, ...


class TemporalModel(nn.Module):
    """TEC-TT, or FlexTEC.

    Args:
        bands: C.
        widths: Channels of the four stages of g_a; the last is M.
        d: Width of the transformer.
        depths: Layers of T_sep, T_joint, T_cur.
        heads: Attention heads (not visible in shapes; the published networks have 16).
        flexible: FlexTEC.
    """

    def __init__(
        self,
        bands: int = 12,
        widths: tuple[int, int, int, int] = (128, 160, 192, 192),
        d: int = 768,
        depths: tuple[int, int, int] = (6, 4, 5),
        heads: int = 16,
        flexible: bool = False,
    ):
        super().__init__()
        self.transform = _Transform(bands, widths)
        self.entropy_model = TokenModel(widths[-1], d, heads, depths, flexible)
        self._temporal_pad_token_maker = PadToken(widths[-1])
        self._dequantizer = Dequantiser(widths[-1], d)

    def g_a(self, x: Tensor) -> Tensor:
        """Standardised pixels [..., C, H, W] > y [..., M, h, w], each frame alone."""
        y = self.transform.analysis_transform["transforms"](x.flatten(0, -4))
        return y.unflatten(0, x.shape[:-3])

    def g_s(self, dequantised: Tensor) -> Tensor:
        """[B, M, h, w] > standardised pixels [B, C, H, W], unclamped."""
        return self.transform.synthesis_transform["transforms"](dequantised)

    def estimate(self, y: Tensor) -> list[_Frame]:
        """Latents [B, T, M, h, w] > every frame with its likelihoods, one parallel pass per frame."""
        return self._frames(y, lambda tokens, context: self._known(torch.round(tokens), context), TOKENS)

    def forecast(self, y: Tensor, k: int) -> list[_Frame]:
        """Latents [B, T, M, h, w] > frames of which only the first k tokens of each block are sent.

        The others are forecast as round(mean) from what was sent and from earlier forecasts, which later
        frames take as their past like real ones. The decoder does the same: nothing else needs sending.
        """

        def quantise(tokens: Tensor, context: Tensor) -> tuple[Tensor, Prediction]:
            sent = torch.round(tokens)

            def settle(i: int, mean: Tensor, _scale: Tensor) -> Tensor:
                return sent[:, i] if i < k else torch.round(mean)

            return self.entropy_model.walk(self.entropy_model.memories(context), settle).stacked()

        return self._frames(y, quantise, k)

    def inpaint(
        self,
        y: Tensor,
        cloudy: Tensor,
        past: list[Tensor],
        as_published: bool = False,
        propagate_from_first_cloud: bool = False,
    ) -> _Frame:
        """One frame whose cloudy cells are forecast, from their clear neighbours in the block and the past.

        Args:
            y: Latent of the frame [B, M, h, w]; its cloudy cells have no influence unless `as_published`.
            cloudy: Bool [B, h, w].
            past: y_hat of earlier frames, [B, M, h, w] each, the newest last; may be empty.
            as_published: Take the dequantiser's features of clear cells from a pass over all of y, cloudy
                cells included, as the published function does; for comparison with it only.
            propagate_from_first_cloud: Forecast all tokens of a block from its first cloudy one on.
        """
        processed = [self.entropy_model.past(y_hat) for y_hat in self._past(past[-2:], y)]
        hidden = hidden_tokens(self.entropy_model, y, cloudy, propagate_from_first_cloud)
        known = torch.round(self.entropy_model.tokens(y))

        def settle(i: int, mean: Tensor, _scale: Tensor) -> Tensor:
            return torch.where(hidden[:, i], torch.round(mean), known[:, i])

        context = self.entropy_model.context(processed[0], processed[-1])
        memories = self.entropy_model.memories(context)
        tokens, prediction = self.entropy_model.walk(memories, settle).stacked()
        if as_published:
            features, seen = prediction.features, self.entropy_model.predict(known, memories).features
            like = y.new_zeros(y.shape[0], seen.shape[-1], *y.shape[2:])
            here = hidden_tokens(self.entropy_model, like, cloudy, propagate_from_first_cloud)
            prediction = replace(prediction, features=torch.where(here, features, seen))
        return self._frame(tokens, prediction, y, TOKENS)

    def _past(self, past: list[Tensor], y: Tensor) -> list[Tensor]:
        """The frames that a frame like y sees: the learned one where there are none."""
        return past or [self._temporal_pad_token_maker(y)]

    def _frames(self, y: Tensor, quantise: _Quantise, sent: int) -> list[_Frame]:
        frames: list[_Frame] = []
        processed = [self.entropy_model.past(self._temporal_pad_token_maker(y[:, 0]))]
        for current in y.unbind(1):
            context = self.entropy_model.context(processed[0], processed[-1])
            settled, prediction = quantise(self.entropy_model.tokens(current), context)
            frames.append(self._frame(settled, prediction, current, sent))
            # the learned past serves the first frame only; then the last two, or the only one twice
            kept = processed[-1:] if len(frames) > 1 else []
            processed = [*kept, self.entropy_model.past(frames[-1].y_hat)]
        return frames

    def _known(self, tokens: Tensor, context: Tensor) -> tuple[Tensor, Prediction]:
        return tokens, self.entropy_model.predict(tokens, self.entropy_model.memories(context))

    def _frame(self, tokens: Tensor, prediction: Prediction, y: Tensor, sent: int) -> _Frame:
        shape = (y.shape[0], *y.shape[2:])
        y_hat = self.entropy_model.grid(tokens, shape)
        features = self.entropy_model.grid(prediction.features, shape)
        mean, scale = prediction.mean[:, :sent], prediction.scale[:, :sent]
        likelihood = grid_likelihood(tokens[:, :sent], mean, scale)
        return _Frame(y_hat, self._dequantizer(y_hat, features), likelihood)


def hidden_tokens(network: TokenModel, y: Tensor, cloudy: Tensor, propagate: bool = False) -> Tensor:
    """Which values of the tokens of y [B, M, h, w] are to be forecast.

    Args:
        network: Says what a token is.
        y: A latent, or features of another width; only its shape counts.
        cloudy: Bool [B, h, w].
        propagate: From the first token of a block in which anything is cloudy, all of it and of those after it.

    Returns:
        Bool [n, 16, M].
    """
    hidden = network.tokens(cloudy[:, None].expand_as(y))
    if not propagate:
        return hidden
    return hidden.any(-1, keepdim=True).cummax(1).values.expand_as(hidden)


def reconstruct(model: TemporalModel, x: Tensor) -> tuple[Tensor, list[_Frame]]:
    """Standardised stack [B, T, C, H, W] of any size > x_hat, the same shape, and every frame."""
    height, width = x.shape[-2:]
    y = model.g_a(pad(x.flatten(0, 1)).unflatten(0, x.shape[:2]))
    frames = model.estimate(y)
    x_hat = torch.stack([model.g_s(frame.dequantised) for frame in frames], 1)
    return x_hat[..., :height, :width], frames


def from_weights(weights: hub.Weights, heads: int = 16) -> TemporalModel:
    """A checkpoint in the published layout > the network, in evaluation mode.

    Args:
        weights: As `eozip.hub.load` gives them.
        heads: Attention heads, which no shape tells; 16 in everything published.

    Raises:
        WeightsError: Not a temporal network, or missing, unexpected or misshapen tensors, all listed.
    """
    if weights.kind not in ("tec-tt", "flextec"):
        raise WeightsError(f"{weights.source}: expected a TEC-TT or FlexTEC network, got {weights.kind}")
    sizes = weights.config
    depths = (sizes["encoder_sep"], sizes["encoder_joint"], sizes["decoder"])
    m, is_flexible = sizes["widths"][-1], weights.kind == "flextec"
    if sizes["d"] % heads or (is_flexible and m % WINDOW**2):
        raise WeightsError(
            f"{weights.source}: expected a width that {heads} attention heads divide"
            + f", and latent channels that {WINDOW**2} cells divide" * is_flexible
            + f"; got {sizes['d']} and {m}"
        )
    with torch.device("meta"):
        model = TemporalModel(sizes["bands"], sizes["widths"], sizes["d"], depths, heads, is_flexible)
    hub.check_tensors(weights, {name: tuple(t.shape) for name, t in model.state_dict().items()})
    model.load_state_dict(dict(weights.tensors), assign=True)  # no second copy of a gigabyte
    model.transform.to(memory_format=torch.channels_last)  # many small convolutions are faster so
    return model.eval().requires_grad_(False)
