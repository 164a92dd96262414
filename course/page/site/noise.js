// The normally distributed numbers that torch draws on a processor from a seed, so that a seed gives the same picture here as
// with `make generate`. The whole numbers come from the Mersenne Twister (Matsumoto and Nishimura, 1998), and two uniform ones
// become two normal ones by the formula of Box and Muller (1958). They agree with torch's to about a millionth: torch computes
// logarithm and sine in float32.

const N = 624, M = 397;

export class Generator {
  /** @param {number} seed a whole number from 0 on; only its last 32 bits count, as in torch */
  constructor(seed) {
    this.state = new Uint32Array(N);
    this.state[0] = Number(BigInt(seed) & 0xffffffffn);
    for (let i = 1; i < N; i += 1) {
      const before = this.state[i - 1] ^ (this.state[i - 1] >>> 30);
      this.state[i] = Math.imul(1812433253, before) + i;
    }
    this.next = N;
  }

  /** The next whole number, 0 ... 2^32 - 1. */
  random() {
    if (this.next === N) {
      for (let i = 0; i < N; i += 1) {
        const joined = (this.state[i] & 0x80000000) | (this.state[(i + 1) % N] & 0x7fffffff);
        this.state[i] = this.state[(i + M) % N] ^ (joined >>> 1) ^ (joined & 1 ? 0x9908b0df : 0);
      }
      this.next = 0;
    }
    let y = this.state[this.next++];
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  }

  /** As many standard normal numbers. @param {number} count at least 16: for fewer, torch has another way */
  randn(count) {
    const uniform = () => (this.random() & 0xffffff) / 2 ** 24;
    const data = Float32Array.from({ length: count }, uniform);
    for (let i = 0; i < count - 15; i += 16) normal_16(data, i);
    if (count % 16) {
      for (let i = count - 16; i < count; i += 1) data[i] = uniform();
      normal_16(data, count - 16);
    }
    return data;
  }
}

/** 16 uniform numbers in [0, 1) to 16 normal ones, in place. @param {Float32Array} data @param {number} start */
function normal_16(data, start) {
  for (let i = start; i < start + 8; i += 1) {
    const radius = Math.sqrt(-2 * Math.log(1 - data[i]));
    const angle = 2 * Math.PI * data[i + 8];
    data[i] = radius * Math.cos(angle);
    data[i + 8] = radius * Math.sin(angle);
  }
}
