"""One band more than a codec was trained for: the others through the codec, the companion quantised and coded losslessly.

For 13-band Level-1C data there is B10, the cirrus band: 60 m pixels upsampled, a few tens of DN wherever there is no high
cloud. It tells nothing about the surface and is nearly empty: a uniform quantiser and the lossless predictor do it justice;
its error is at most half a step, a step that follows the codec's own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from eozip import sensors
from eozip.bitstream import lossless
from eozip.codecs.base import Encoded
from eozip.codecs.small.image_codec import SmallCodec
from eozip.errors import FormatError

STEP_BYTES = 2
STEP_SHARE = (
    1 / 3
)  # of the codec's step for block coefficients; brings the companion's error near that of other bands


@dataclass(frozen=True)
class WithCompanion:
    """A `Codec` for one band more than `codec` takes; its sections are the codec's and the companion's.

    Attributes:
        id: full id.
        codec: takes the other bands.
        sensor: id of the sensor with the companion.
        band: position of the companion among the sensor's bands.
    """

    id: str
    codec: SmallCodec
    sensor: str
    band: int

    @property
    def weights_hash(self) -> bytes:
        return self.codec.weights_hash

    can_skip = has_budgets = False

    @property
    def bands(self) -> int:
        return self.codec.bands + 1

    def step(self, quality: float) -> int:
        """Quantisation step of the companion in DN, odd, so that its middle is an integer."""
        return 2 * int(self.codec.step(quality) * STEP_SHARE / 2) + 1

    def encode(self, x: np.ndarray, quality: float) -> Encoded:
        """Encodes float32 DN [T, C, H, W] at a quality of 0 to 100."""
        coded = self.codec.encode(np.delete(x, self.band, axis=1), quality)
        step = self.step(quality)
        levels = np.round(x[:, self.band : self.band + 1] / step).astype(np.int16)
        # the step travels with the levels: computed from floats, it might come out different elsewhere
        companion = step.to_bytes(STEP_BYTES, "little") + lossless.encode_array(levels)
        return replace(coded, sections=(*coded.sections, companion))

    def estimate(self, x: np.ndarray, quality: float) -> float:
        """Bits that `encode` would write: an estimate of the codec's part, the companion's as they are."""
        companion = 8 * len(self.encode(x, quality).sections[-1])
        return self.codec.estimate(np.delete(x, self.band, axis=1), quality) + companion

    def decode(self, coded: Encoded, shape: tuple[int, int, int, int], quality: float) -> np.ndarray:
        """Decodes to float32 DN [T, C, H, W].

        Raises:
            DesyncError: a frame's symbols are not those that were encoded.
            FormatError: a wrong number of sections, or bytes that no encoder writes.
        """
        if not coded.sections:
            raise FormatError(f"{self.id}: expected the sections of {self.codec.id} and one more, got none")
        frames, bands, height, width = shape
        others = replace(coded, sections=coded.sections[:-1])
        x = self.codec.decode(others, (frames, bands - 1, height, width), quality)
        companion = coded.sections[-1]
        step = int.from_bytes(companion[:STEP_BYTES], "little")
        levels = lossless.decode_array(companion[STEP_BYTES:], (frames, 1, height, width), "int16")
        return np.insert(x, self.band, levels[:, 0].astype(np.float32) * step, axis=1)


def with_cirrus(full_id: str, codec: SmallCodec) -> WithCompanion:
    """A codec of twelve bands for Level-1C, with B10 beside them."""
    return WithCompanion(full_id, codec, "s2-l1c", sensors.get("s2-l1c").band_names.index("B10"))
