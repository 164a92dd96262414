"""A mask row by row; padding by slicing a longer row; a layer written out inside of the encoder."""


class Tokenizer(Tokenizer):
    def row(self, prompt):
        ids = [self.begin] + self.tokenize(prompt)
        ids = ids[: self.max_length - 1]
        return (ids + [self.end] * self.max_length)[: self.max_length]

    def __call__(self, prompts):
        if type(prompts) is str:
            return torch.LongTensor([self.row(prompts)])
        return torch.LongTensor([self.row(prompt) for prompt in prompts]).reshape(-1, self.max_length)


def causal_mask(length):
    mask = torch.empty(length, length)
    for i in range(length):
        mask[i, : i + 1] = 0
        mask[i, i + 1 :] = -float("inf")
    return mask


class CLIPTextEncoder(CLIPTextEncoder):
    def forward(self, tokens):
        x = nn.functional.embedding(tokens, self.token_embedding.weight)
        x = x + self.position_embedding.weight.narrow(0, 0, tokens.shape[1]).unsqueeze(0)
        mask = causal_mask(tokens.shape[1]).type_as(x)
        for layer in self.layers:
            x = x + layer.attention(layer.norm1(x), mask=mask)
            x = x + layer.fc2(quick_gelu(layer.fc1(layer.norm2(x))))
        return nn.functional.layer_norm(x, x.shape[-1:], self.final_norm.weight, self.final_norm.bias)
