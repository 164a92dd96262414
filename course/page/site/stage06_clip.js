// Stage 6 in JavaScript, as far as the page needs it: the tokenizer. solutions/stage06_clip.py explains it, under the
// same names; tests/page/ compares the two.

export const BEGIN = "<|startoftext|>", END = "<|endoftext|>";

const MARK = /(<\|startoftext\|>|<\|endoftext\|>)/; // the brackets make split keep the marks
const CONTRACTIONS = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"];
const SPACE = /[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]/;

/** @param {string} character @returns {"letter" | "number" | "space" | "other"} */
export function kind_of(character) {
  if (SPACE.test(character)) return "space";
  if (/\p{L}/u.test(character)) return "letter";
  return /\p{N}/u.test(character) ? "number" : "other";
}

/** The text cut into words, without the white space between them. @param {string} text @returns {string[]} */
export function words(text) {
  const characters = Array.from(text); // of Unicode: JavaScript's own may be halves
  const found = [];
  let start = 0;
  while (start < characters.length) {
    const kind = kind_of(characters[start]);
    let end = start + 1;
    const contraction = CONTRACTIONS.find((one) => characters.slice(start, start + one.length).join("") === one);
    if (contraction !== undefined) end = start + contraction.length;
    else if (kind !== "number") while (end < characters.length && kind_of(characters[end]) === kind) end += 1;
    if (kind !== "space") found.push(characters.slice(start, end).join(""));
    start = end;
  }
  return found;
}

/** One printable character for each of the 256 bytes. @returns {string[]} */
export function byte_alphabet() {
  const printable = (/** @type {number} */ byte) =>
    (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || (byte >= 0xae && byte <= 0xff);
  let others = 0;
  return Array.from({ length: 256 }, (_, byte) => String.fromCodePoint(printable(byte) ? byte : 256 + others++));
}

export class Tokenizer {
  /**
   * @param {Record<string, number>} vocab the id of every token, the two marks included
   * @param {string[][]} merges pairs of symbols, the pair to be merged first at the front
   * @param {number} max_length the number of ids in every row
   */
  constructor(vocab, merges, max_length = 77) {
    this.vocab = new Map(Object.entries(vocab));
    this.rank = new Map(merges.map((pair, rank) => [pair.join(" "), rank]));
    this.max_length = max_length;
    this.alphabet = byte_alphabet();
    this.begin = vocab[BEGIN];
    this.end = vocab[END];
  }

  /** Unicode's normal form C, each character made lower case by itself. @param {string} text */
  clean(text) {
    return Array.from(text.normalize("NFC"), (character) => character.toLowerCase()).join("");
  }

  /** One word, in the byte alphabet, to its tokens. @param {string} word @returns {string[]} */
  bpe(word) {
    let symbols = Array.from(word);
    symbols[symbols.length - 1] += "</w>";
    while (symbols.length > 1) {
      const ranks = symbols.slice(1).map((symbol, i) => this.rank.get(`${symbols[i]} ${symbol}`) ?? Infinity);
      const best = Math.min(...ranks);
      if (best === Infinity) break;
      const place = ranks.indexOf(best);
      const [first, second] = [symbols[place], symbols[place + 1]];
      const merged = [];
      for (let i = 0; i < symbols.length; i += 1) {
        if (symbols[i] === first && symbols[i + 1] === second) {
          merged.push(first + second);
          i += 1;
        } else merged.push(symbols[i]);
      }
      symbols = merged;
    }
    return symbols;
  }

  /** A text of any length to the ids of its tokens, without begin and end marks. @param {string} text */
  tokenize(text) {
    const ids = [];
    for (const part of text.split(MARK)) {
      if (part === BEGIN || part === END) {
        ids.push(/** @type {number} */ (this.vocab.get(part)));
        continue;
      }
      for (const word of words(this.clean(part))) {
        const spelled = Array.from(new TextEncoder().encode(word), (byte) => this.alphabet[byte]).join("");
        for (const token of this.bpe(spelled)) ids.push(this.vocab.get(token) ?? this.end);
      }
    }
    return ids;
  }

  /** One prompt to a row of max_length ids: begin mark, tokens, end mark, end marks. @param {string} prompt */
  row(prompt) {
    const ids = [this.begin, ...this.tokenize(prompt).slice(0, this.max_length - 2), this.end];
    return [...ids, ...Array(this.max_length - ids.length).fill(this.end)];
  }

  /** Ids back to text, without the marks and with one space between words. @param {number[]} ids */
  decode(ids) {
    const token_of = new Map(Array.from(this.vocab, ([token, id]) => [id, token]));
    const byte_of = new Map(this.alphabet.map((character, byte) => [character, byte]));
    const spelled = ids.filter((id) => id !== this.begin && id !== this.end).map((id) => token_of.get(id)).join("");
    const bytes = Array.from(spelled.replaceAll("</w>", " "), (c) => (c === " " ? 32 : byte_of.get(c) ?? 63));
    const text = new TextDecoder("utf-8", { ignoreBOM: true }).decode(new Uint8Array(bytes));
    return text.replace(/^[\x1c-\x20]+|[\x1c-\x20]+$/g, "");
  }
}

/** The lines of merges.txt as pairs. @param {string} text @returns {string[][]} */
export function read_merges(text) {
  return text.split("\n").filter((line) => line.trim() && !line.startsWith("#version")).map((line) => line.trim().split(/\s+/));
}
