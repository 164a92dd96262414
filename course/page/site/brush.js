// The picture to start from, and the brush that says where it is painted anew.

const TINT = [235, 60, 160];

export class Brush {
  /**
   * @param {HTMLCanvasElement} canvas @param {number} side width and height of the picture, in pixels
   * @param {() => void} changed called after each change
   */
  constructor(canvas, side, changed) {
    this.canvas = canvas;
    this.side = side;
    this.changed = changed;
    this.radius = 12;
    /** @type {Uint8ClampedArray | null} RGBA bytes */
    this.picture = null;
    this.mask = new Uint8Array(side * side);
    this.cursor = [side / 2, side / 2];
    canvas.width = canvas.height = side;
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.paint(...this.place(event));
    });
    canvas.addEventListener("pointermove", (event) => {
      if (event.buttons) this.paint(...this.place(event));
    });
    canvas.addEventListener("pointerup", () => this.changed());
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("focus", () => this.show());
    canvas.addEventListener("blur", () => this.show());
  }

  /** @param {PointerEvent} event @returns {[number, number]} */
  place(event) {
    const box = this.canvas.getBoundingClientRect();
    const scale = this.side / box.width;
    return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const move = moves[/** @type {keyof typeof moves} */ (event.key)];
    if (!move && event.key !== " ") return;
    event.preventDefault();
    if (move) this.cursor = this.cursor.map((at, i) => Math.min(Math.max(at + 4 * move[i], 0), this.side));
    else {
      this.paint(this.cursor[0], this.cursor[1]);
      this.changed();
    }
    this.show();
  }

  /** @param {number} x @param {number} y in pixels of the picture */
  paint(x, y) {
    if (!this.picture) return;
    for (let i = 0; i < this.mask.length; i += 1) {
      const [across, down] = [(i % this.side) + 0.5 - x, Math.floor(i / this.side) + 0.5 - y];
      if (across * across + down * down <= this.radius * this.radius) this.mask[i] = 1;
    }
    this.show();
  }

  /** @param {Uint8ClampedArray | null} picture */
  take(picture) {
    this.picture = picture && new Uint8ClampedArray(picture);
    this.clear();
  }

  clear() {
    this.mask.fill(0);
    this.show();
    this.changed();
  }

  /** The mask, or null if nothing is painted. */
  painted() {
    return this.mask.includes(1) ? new Uint8Array(this.mask) : null;
  }

  show() {
    const context = this.canvas.getContext("2d");
    if (!context) return;
    context.clearRect(0, 0, this.side, this.side);
    if (!this.picture) return;
    const shown = Uint8ClampedArray.from(this.picture, (value, i) =>
      i % 4 < 3 && this.mask[i >> 2] ? (value + TINT[i % 4]) / 2 : value,
    );
    context.putImageData(new ImageData(shown, this.side, this.side), 0, 0);
    if (document.activeElement === this.canvas) {
      context.strokeStyle = "#fff";
      context.beginPath();
      context.arc(this.cursor[0], this.cursor[1], this.radius, 0, 2 * Math.PI);
      context.stroke();
    }
  }
}

/** The middle of a picture file, scaled to a square, as RGBA bytes. @param {Blob} file @param {number} side */
export async function read_picture(file, side) {
  const bitmap = await createImageBitmap(file);
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = side;
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.fillStyle = "#fff";
  context.fillRect(0, 0, side, side);
  context.imageSmoothingQuality = "high";
  const size = Math.min(bitmap.width, bitmap.height);
  context.drawImage(bitmap, (bitmap.width - size) / 2, (bitmap.height - size) / 2, size, size, 0, 0, side, side);
  return context.getImageData(0, 0, side, side).data;
}

/** A mask as a picture: white where it is painted. @param {Uint8Array} mask */
export function mask_picture(mask) {
  return Uint8ClampedArray.from({ length: 4 * mask.length }, (_, i) => (i % 4 === 3 || mask[i >> 2] ? 255 : 0));
}
