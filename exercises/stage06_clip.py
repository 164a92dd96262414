"""Stage 6: CLIP's text encoder, from a prompt to 77 vectors.

CLIP was trained on pictures with their captions: the vectors of a picture and of its own caption should have similar
directions, those of a picture and of other captions different ones. So its text encoder learned to represent what can
be *seen*. Stable Diffusion uses it without training it further. It takes not one vector for the whole prompt but the
vector of every token, so that cross-attention can find "red" and "house" separately.

First the tokenizer. Byte-pair encoding writes a word as single bytes, so that any text can be written, and then merges
pairs of neighbouring symbols. The merge list was learned from a large text, by merging the most frequent pair again and
again: common words become one token, rare ones several. `</w>` marks the end of a word, so that "car" alone and the
"car" of "carpet" are different tokens. Every prompt becomes exactly 77 ids: begin mark, tokens, end mark, and end marks
again up to the end.

Then a transformer of pre-norm layers. The causal mask lets a token see only itself and what stands before it, so the
first end mark has seen the whole prompt. The padding is not masked: Stable Diffusion was trained that way.

Sources: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021,
arXiv:2103.00020, section 2.4; Sennrich et al., "Neural Machine Translation of Rare Words with Subword Units", 2016,
arXiv:1508.07909, section 3.2 (byte-pair encoding); Hendrycks and Gimpel, 2016, arXiv:1606.08415, section 2 (the fast
GELU).
"""

import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .stage03_attention import MultiHeadAttention

BEGIN, END = "<|startoftext|>", "<|endoftext|>"

MARK = re.compile(r"(<\|startoftext\|>|<\|endoftext\|>)")  # the brackets make MARK.split keep the marks

CONTRACTIONS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")


def kind_of(character: str) -> str:
    """Given: "letter", "number", "space" or "other", as Unicode classifies characters."""
    if character.isspace() and character not in "\x1c\x1d\x1e\x1f":  # for Unicode these four are no white space
        return "space"
    category = unicodedata.category(character)  # two letters, such as "Lu": letter, upper case
    return {"L": "letter", "N": "number"}.get(category[0], "other")


def words(text: str) -> list[str]:
    """Given: the text cut into words, without the white space between them.

    A word is an English contraction ("'s"), a run of letters, a single number character (so "42" is two words), or a
    run of other characters ("!?").
    """
    found = []
    start = 0
    while start < len(text):
        kind = kind_of(text[start])
        end = start + 1
        contraction = next((c for c in CONTRACTIONS if text.startswith(c, start)), None)
        if contraction is not None:
            end = start + len(contraction)
        elif kind != "number":
            while end < len(text) and kind_of(text[end]) == kind:
                end += 1
        if kind != "space":
            found.append(text[start:end])
        start = end
    return found


def byte_alphabet() -> dict[int, str]:
    """Given: one printable character for each of the 256 bytes, so that a merge list can be a text file.

    The 188 bytes that are visible characters in Latin-1 stand for themselves; the other 68 get the characters from
    number 256 on, in order.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {byte: chr(byte) for byte in printable}
    return alphabet | {byte: chr(256 + i) for i, byte in enumerate(others)}


class Tokenizer:
    """Given: the parts of CLIP's tokenizer.

    Args:
        vocab: the id of every token, the two marks included.
        merges: pairs of symbols, the pair to be merged first at the front.
        max_length: the number of ids in every row, whatever the length of the prompt.
    """

    def __init__(self, vocab: dict[str, int], merges: Sequence[tuple[str, str]], max_length: int = 77):
        self.vocab = vocab
        self.rank = {tuple(pair): rank for rank, pair in enumerate(merges)}
        self.max_length = max_length
        self.alphabet = byte_alphabet()
        self.begin, self.end = vocab[BEGIN], vocab[END]

    def clean(self, text: str) -> str:
        """Given: the text in Unicode's normal form C, where "é" is always one character, and in lower case.

        Each character is made lower case by itself, as transformers' CLIPTokenizer does it: "ΣΟΦΌΣ".lower() would give
        the last sigma another form, "ς", because it ends a word.
        """
        return "".join(character.lower() for character in unicodedata.normalize("NFC", text))

    def bpe(self, word: str) -> list[str]:
        """Exercise 6.1: split one word into the tokens of the vocabulary, by byte-pair encoding.

        Start with one symbol per character, the last one with `</w>` appended. As long as there are neighbours that
        are a pair of the merge list, take the pair with the lowest rank (self.rank: pair -> rank) and join it wherever
        it stands in the word, from left to right.

        Args:
            word: at least one character of the byte alphabet, e.g. "carpet".

        Returns:
            The symbols left at the end, e.g. ["car", "pet</w>"].
        """
        raise NotImplementedError(
            "exercise 6.1: split one word into the tokens of the vocabulary, by byte-pair encoding"
        )

    def tokenize(self, text: str) -> list[int]:
        """Exercise 6.2: a text of any length to the ids of its tokens, without begin and end marks.

        Cut the text at the marks (MARK.split(text)); a part that is itself a mark, BEGIN or END, is a single token.
        Clean every other part (self.clean), cut it into words (words), spell each word's UTF-8 bytes in the byte
        alphabet (self.alphabet: byte -> character), split it (self.bpe), and look the tokens up (self.vocab). A token
        that the vocabulary lacks becomes self.end.

        Args:
            text: any text, also an empty one.

        Returns:
            The ids, from left to right.
        """
        raise NotImplementedError(
            "exercise 6.2: a text of any length to the ids of its tokens, without begin and end marks"
        )

    def __call__(self, prompts: str | Sequence[str]) -> Tensor:
        """Exercise 6.3: prompts to one row of self.max_length ids each.

        A row is the begin mark, the tokens, the end mark, and end marks again as padding. A prompt with too many tokens
        loses its last ones, never the end mark.

        Args:
            prompts: one prompt or several.

        Returns:
            (number of prompts, max_length), int64.
        """
        raise NotImplementedError("exercise 6.3: prompts to one row of self.max_length ids each")

    def decode(self, ids: Sequence[int]) -> str:
        """Given: ids back to text, without the marks and with one space between words."""
        token_of = {i: token for token, i in self.vocab.items()}
        byte_of = {character: byte for byte, character in self.alphabet.items()}
        spelled = "".join(token_of[int(i)] for i in ids if int(i) not in (self.begin, self.end))
        words = spelled.replace("</w>", " ")
        return b"".join(b" " if c == " " else bytes([byte_of[c]]) for c in words).decode("utf-8", "replace").strip()


@dataclass(frozen=True)
class CLIPConfig:
    """Given: the sizes of the text encoder; the defaults are those of Stable Diffusion 1.5."""

    vocab_size: int = 49408
    width: int = 768
    hidden_width: int = 3072
    num_layers: int = 12
    num_heads: int = 12
    max_length: int = 77  # tokens in every prompt, begin and end marks included


def quick_gelu(x: Tensor) -> Tensor:
    """Given: CLIP's activation, a fast approximation of GELU.

        quick_gelu(x) = x * sigmoid(1.702 * x)

    Args:
        x: any shape, any floating dtype.

    Returns:
        A new tensor with the shape and dtype of x.
    """
    return x * torch.sigmoid(1.702 * x)


def causal_mask(length: int) -> Tensor:
    """Exercise 6.4: the mask that lets token i look at the tokens 0 ... i, itself included.

    Args:
        length: the number of tokens.

    Returns:
        (length, length), float32: row i is 0 in the columns 0 ... i and -inf to the right of them.
    """
    raise NotImplementedError("exercise 6.4: the mask that lets token i look at the tokens 0 ... i, itself included")


class CLIPLayer(nn.Module):
    """Exercise 6.5: one layer of the text transformer, pre-norm.

        x = x + attention(norm1(x), mask=mask)
        x = x + fc2(quick_gelu(fc1(norm2(x))))

    Parameters:
        norm1, norm2: nn.LayerNorm over config.width (eps 1e-5).
        attention: MultiHeadAttention with config.num_heads heads and biases on to_q, to_k, to_v.
        fc1: Linear, width -> hidden_width; fc2: Linear, hidden_width -> width.
    """

    def __init__(self, config: CLIPConfig):
        raise NotImplementedError("exercise 6.5: one layer of the text transformer, pre-norm")

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """
        Args:
            x: (batch, tokens, width).
            mask: (tokens, tokens), added to the attention scores.

        Returns:
            (batch, tokens, width).
        """
        raise NotImplementedError("exercise 6.5: one layer of the text transformer, pre-norm")


class CLIPTextEncoder(nn.Module):
    """Exercise 6.6: token ids to one vector per token.

        x = token_embedding(tokens) + position_embedding(0, 1, 2, ...)
        x = each layer in turn, with the causal mask
        y = final_norm(x)

    Parameters:
        token_embedding: nn.Embedding, vocab_size x width.
        position_embedding: nn.Embedding, max_length x width.
        layers: nn.ModuleList of config.num_layers CLIPLayers.
        final_norm: nn.LayerNorm over width (eps 1e-5).
    """

    def __init__(self, config: CLIPConfig):
        raise NotImplementedError("exercise 6.6: token ids to one vector per token")

    def forward(self, tokens: Tensor) -> Tensor:
        """
        Args:
            tokens: (batch, length), int64, length at most max_length.

        Returns:
            (batch, length, width), in the dtype of the parameters.
        """
        raise NotImplementedError("exercise 6.6: token ids to one vector per token")
