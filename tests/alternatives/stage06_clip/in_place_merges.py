"""Merges inside of one list; masks by comparison; positions by an embedding call."""


class Tokenizer(Tokenizer):
    def bpe(self, word):
        symbols = list(word)
        symbols[-1] += "</w>"
        while True:
            known = [pair for pair in zip(symbols, symbols[1:]) if pair in self.rank]
            if not known:
                return symbols
            first, second = min(known, key=self.rank.__getitem__)
            i = 0
            while i < len(symbols) - 1:
                if symbols[i] == first and symbols[i + 1] == second:
                    symbols[i : i + 2] = [first + second]
                i += 1

    def __call__(self, prompts):
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        rows = torch.full((len(prompts), self.max_length), self.end, dtype=torch.int64)
        rows[:, 0] = self.begin
        for row, prompt in zip(rows, prompts):
            ids = self.tokenize(prompt)[: self.max_length - 2]
            row[1 : len(ids) + 1] = torch.tensor(ids, dtype=torch.int64)
        return rows


def causal_mask(length):
    position = torch.arange(length)
    return torch.zeros(length, length).masked_fill(position[None, :] > position[:, None], float("-inf"))


class CLIPTextEncoder(CLIPTextEncoder):
    def forward(self, tokens):
        positions = torch.arange(tokens.size(1), device=tokens.device)
        x = self.position_embedding(positions) + self.token_embedding(tokens)
        mask = causal_mask(len(positions)).to(x)
        for i in range(len(self.layers)):
            x = self.layers[i](x, mask)
        return self.final_norm(x)
