"""Byte-pair encoding by recursion; layers as two functions."""

from itertools import chain


class Tokenizer(Tokenizer):
    def merged(self, symbols, pair):
        if len(symbols) < 2:
            return symbols
        if tuple(symbols[:2]) == pair:
            return ["".join(pair), *self.merged(symbols[2:], pair)]
        return [symbols[0], *self.merged(symbols[1:], pair)]

    def bpe(self, word):
        symbols = [*word[:-1], word[-1:] + "</w>"]
        ranks = {self.rank[pair]: pair for pair in zip(symbols, symbols[1:]) if pair in self.rank}
        while ranks:
            symbols = self.merged(symbols, ranks[min(ranks)])
            ranks = {self.rank[pair]: pair for pair in zip(symbols, symbols[1:]) if pair in self.rank}
        return symbols

    def tokens_of(self, part):
        if part == BEGIN or part == END:
            return [part]
        spelled = ("".join(map(self.alphabet.get, word.encode())) for word in words(self.clean(part)))
        return chain.from_iterable(map(self.bpe, spelled))

    def tokenize(self, text):
        tokens = chain.from_iterable(map(self.tokens_of, MARK.split(text)))
        return [self.vocab[token] if token in self.vocab else self.vocab[END] for token in tokens]


class CLIPLayer(CLIPLayer):
    def mlp(self, x):
        h = self.fc1(x)
        return self.fc2(h / (1 + torch.exp(-1.702 * h)))

    def forward(self, x, mask):
        y = self.norm1(x)
        x = self.attention(y, y, mask) + x
        return self.mlp(self.norm2(x)) + x
