// A small Poisson solve for the live preview: the piece keeps its gradients, its edge takes the destination's colours.
// What is added to the piece is the membrane through the differences along its edge: Laplace's equation, solved from
// coarse to fine. Plain mathematics, no page.

const SWEEPS = 6; // at each size; more is not seen

/**
 * Fill what is unknown as smoothly as can be.
 *
 * @param {Float32Array} values - (height * width * channels), counted where known is 1; the others are overwritten
 * @param {Uint8Array} known - (height * width)
 */
export function membrane(values, known, width, height, channels = 3) {
  if (width > 4 && height > 4) {
    const half = halved(values, known, width, height, channels);
    membrane(half.values, half.known, half.width, half.height, channels);
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        if (known[y * width + x]) continue;
        const from = ((y >> 1) * half.width + (x >> 1)) * channels;
        for (let c = 0; c < channels; c++) values[(y * width + x) * channels + c] = half.values[from + c];
      }
    }
  }
  for (let sweep = 0; sweep < SWEEPS; sweep++) relax(values, known, width, height, channels);
  return values;
}

/** Gauss-Seidel: every unknown pixel becomes the mean of its neighbours; beyond the frame lies what is in it. */
function relax(values, known, width, height, channels) {
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const i = y * width + x;
      if (known[i]) continue;
      const left = (x ? i - 1 : i) * channels;
      const right = (x < width - 1 ? i + 1 : i) * channels;
      const up = (y ? i - width : i) * channels;
      const down = (y < height - 1 ? i + width : i) * channels;
      for (let c = 0; c < channels; c++) {
        values[i * channels + c] = (values[left + c] + values[right + c] + values[up + c] + values[down + c]) / 4;
      }
    }
  }
}

/** Average what is known of every 2 x 2 pixels. */
function halved(values, known, width, height, channels) {
  const w = (width + 1) >> 1;
  const h = (height + 1) >> 1;
  const sums = new Float32Array(w * h * channels);
  const counts = new Uint8Array(w * h);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const i = y * width + x;
      if (!known[i]) continue;
      const to = (y >> 1) * w + (x >> 1);
      counts[to]++;
      for (let c = 0; c < channels; c++) sums[to * channels + c] += values[i * channels + c];
    }
  }
  for (let i = 0; i < w * h; i++) {
    for (let c = 0; c < channels; c++) sums[i * channels + c] /= counts[i] || 1;
  }
  return { values: sums, known: counts.map((count) => (count ? 1 : 0)), width: w, height: h };
}

/**
 * Blend a piece into a destination of the same size, both RGBA of 0..255; the piece's alpha is its mask.
 *
 * @returns {Uint8ClampedArray} RGBA
 */
export function blended(piece, destination, width, height) {
  const count = width * height;
  const edge = new Uint8Array(count);
  const values = new Float32Array(count * 3);
  for (let i = 0; i < count; i++) {
    const alpha = piece[4 * i + 3];
    // The edge holds the difference that has to be met; what lies beyond it says nothing.
    if (!alpha || (alpha >= 128 && inside(piece, i, width, height))) continue;
    edge[i] = 1;
    for (let c = 0; c < 3; c++) values[3 * i + c] = destination[4 * i + c] - piece[4 * i + c];
  }
  membrane(values, edge, width, height);
  const made = new Uint8ClampedArray(destination);
  for (let i = 0; i < count; i++) {
    const share = piece[4 * i + 3] / 255;
    if (!share) continue;
    for (let c = 0; c < 3; c++) {
      const goal = piece[4 * i + c] + values[3 * i + c];
      made[4 * i + c] = destination[4 * i + c] + share * (goal - destination[4 * i + c]);
    }
  }
  return made;
}

/** Tell a pixel all of whose neighbours belong to the piece; the frame of the window is edge, too. */
function inside(piece, i, width, height) {
  const x = i % width;
  const y = (i - x) / width;
  if (x === 0 || y === 0 || x === width - 1 || y === height - 1) return false;
  return [i - 1, i + 1, i - width, i + width].every((neighbour) => piece[4 * neighbour + 3] >= 128);
}
