"""Calls that show mistakes: for each exercise a few, the plainest ones first; and what is given for them."""

import string
from collections.abc import Mapping
from typing import Any

# fmt: off
PROBES: dict[str, tuple[str, ...]] = {
    "1.1": ("group_norm(randn(1, 4, 4, 4), 2)",
            "group_norm(3 * randn(2, 8, 4, 6) + 2, 4)",
            "group_norm(3 * randn(2, 8, 4, 6) + 2, 4, 1 + rand(8), rand(8))",
            "group_norm(0.01 * randn(2, 4, 2, 2), 2)",
            "group_norm(randn(2, 8, 4, 6), 4, weight=2 * ones(8))",
            "group_norm(randn(2, 8, 4, 6), 4, bias=ones(8))",
            "group_norm(ones(1, 4, 2, 2), 2)",
            "group_norm((300 + randn(2, 8, 4, 6)).half(), 4)",
            "group_norm((300 + randn(2, 8, 4, 6)).bfloat16(), 4)",
            "group_norm(randn(2, 8, 4, 6).half(), 4, (1 + rand(8)).half())",
            "group_norm(randn(2, 4, 6), 2)",
            "group_norm(randn(2, 4, 6), 2, ones(4))",
            "group_norm(randn(1, 6, 2, 2), 4)",
            "group_norm(randn(2, 4, 6, 8).transpose(2, 3), 2)",
            "x = randn(1, 4, 2, 2, requires_grad=True); group_norm(x, 2).pow(3).sum().backward(); x.grad",
            "x = randn(1, 4, 2, 2); group_norm(x, 2); x"),
    "1.2": ("GroupNorm(2, 4)(randn(1, 4, 4, 4))",
            "filled(GroupNorm(4, 8))(randn(2, 8, 4, 6))",
            "GroupNorm(4, 8, eps=0.1)(0.1 * randn(2, 8, 4, 6))",
            "GroupNorm(4, 8)(0.01 * randn(2, 8, 4, 6))",
            "layer = GroupNorm(4, 8); layer(ones(1, 8, 2, 2)); filled(layer)(randn(2, 8, 4, 6))",
            "GroupNorm(4, 8)(randn(2, 8, 4, 6)).dtype",
            "GroupNorm(4, 8).half()(randn(2, 8, 4, 6).half()).dtype",
            "[name for name, _ in GroupNorm(4, 8).named_parameters()]"),
    "2.1": ("silu(linspace(-4, 4, 9))",
            "silu(100 * randn(20))",
            "x = randn(6); silu(x); x",
            "x = ones(3, requires_grad=True); silu(x).sum().backward(); x.grad"),
    "2.2": ("filled(ResidualBlock(8, 8, num_groups=4))(randn(1, 8, 4, 4))",
            "filled(ResidualBlock(8, 16, num_groups=4))(randn(2, 8, 4, 6))",
            "filled(ResidualBlock(8, 8, 12, num_groups=4))(randn(2, 8, 4, 6), randn(2, 12))",
            "filled(ResidualBlock(8, 16, 12, num_groups=4))(randn(2, 8, 4, 4), randn(2, 12))",
            "filled(ResidualBlock(8, 16, num_groups=4))(0.001 * randn(2, 8, 4, 6))",
            "filled(ResidualBlock(32, 64))(randn(2, 32, 4, 6))",
            "[name for name, _ in ResidualBlock(32, 64, 12).named_parameters()]",
            "[name for name, _ in ResidualBlock(32, 32).named_parameters()]",
            "x = randn(1, 8, 4, 4); filled(ResidualBlock(8, 8, num_groups=4))(x); x"),
    "3.1": ("scaled_dot_product_attention(randn(1, 1, 4, 4), randn(1, 1, 4, 4), randn(1, 1, 4, 4))",
            "scaled_dot_product_attention(randn(2, 3, 5, 4), randn(2, 3, 7, 4), randn(2, 3, 7, 6))",
            "scaled_dot_product_attention(randn(2, 3, 5, 4), randn(2, 3, 7, 4), randn(2, 3, 7, 6), randn(5, 7))",
            "scaled_dot_product_attention(randn(1, 1, 3, 4), randn(1, 1, 3, 4), randn(1, 1, 3, 4),"
            " tensor([[0, -inf, -inf], [0, 0, -inf], [0, 0, 0]]))",
            "scaled_dot_product_attention(40 * ones(1, 1, 2, 64).half(), 40 * ones(1, 1, 2, 64).half(),"
            " ones(1, 1, 2, 64).half())"),
    "3.2": ("filled(MultiHeadAttention(8, 2))(randn(1, 4, 8))",
            "filled(MultiHeadAttention(12, 3))(randn(2, 5, 12))",
            "filled(MultiHeadAttention(12, 3, 8))(randn(2, 5, 12), randn(2, 7, 8))",
            "filled(MultiHeadAttention(12, 3))(randn(2, 5, 12), randn(2, 7, 12))",
            "filled(MultiHeadAttention(12, 3))(randn(2, 5, 12), randn(2, 5, 12))",
            "filled(MultiHeadAttention(12, 3))(randn(2, 5, 12), mask=randn(5, 5))",
            "[name for name, _ in MultiHeadAttention(12, 3, 8).named_parameters()]",
            "[name for name, _ in MultiHeadAttention(12, 3, qkv_bias=True).named_parameters()]"),
    "3.3": ("filled(PixelAttention(8, 4))(randn(1, 8, 4, 4))",
            "filled(PixelAttention(8, 4))(randn(2, 8, 3, 5))",
            "filled(PixelAttention(8, 4))(0.001 * randn(2, 8, 3, 5))",
            "filled(PixelAttention(8, 4, eps=0.1))(randn(2, 8, 3, 5))",
            "filled(PixelAttention(64))(randn(2, 64, 3, 5))",
            "[name for name, _ in PixelAttention(8, 4).named_parameters()]"),
    "3.4": ("filled(GEGLU(6, 4))(randn(2, 5, 6))",
            "filled(GEGLU(6, 4))(5 * randn(2, 5, 6))"),
    "3.5": ("filled(TransformerBlock(12, 3, 8))(randn(1, 4, 12), randn(1, 7, 8))",
            "filled(TransformerBlock(12, 3, 8))(randn(2, 5, 12), randn(2, 7, 8))",
            "filled(TransformerBlock(12, 3, 8))(0.001 * randn(2, 5, 12), randn(2, 7, 8))",
            "x = randn(1, 4, 12); filled(TransformerBlock(12, 3, 8))(x, randn(1, 7, 8)); x"),
    "3.6": ("filled(SpatialTransformer(8, 2, 6, 4))(randn(1, 8, 4, 4), randn(1, 7, 6))",
            "filled(SpatialTransformer(8, 2, 6, 4))(randn(2, 8, 3, 5), randn(2, 7, 6))",
            "filled(SpatialTransformer(8, 2, 6, 4))(0.001 * randn(2, 8, 3, 5), randn(2, 7, 6))",
            "filled(SpatialTransformer(64, 2, 6))(randn(1, 64, 3, 5), randn(1, 7, 6))"),
    "4.1": ("upsample_nearest(arange(4.0).reshape(1, 1, 2, 2))",
            "upsample_nearest(randn(2, 3, 4, 6))",
            "upsample_nearest(randn(2, 3, 4, 6), scale=3)"),
    "4.2": ("filled(Upsample(2))(randn(1, 2, 4, 4))",
            "filled(Upsample(4))(randn(2, 4, 3, 5))",
            "layer = filled(Upsample(4)); layer(randn(2, 4, 2, 2)); layer(randn(2, 4, 3, 5))",
            "[name for name, _ in Upsample(4).named_parameters()]"),
    "4.3": ("filled(Downsample(2))(randn(1, 2, 4, 4))",
            "filled(Downsample(4))(randn(2, 4, 6, 8))",
            "filled(Downsample(4, asymmetric=True))(randn(2, 4, 6, 8))",
            "layer = filled(Downsample(4, asymmetric=True)); layer(ones(2, 4, 8, 10)); layer(randn(2, 4, 6, 8))",
            "[name for name, _ in Downsample(4).named_parameters()]"),
    "5.1": ("filled(Encoder(config))(randn(1, 3, 8, 8))",
            "filled(Encoder(config))(randn(2, 3, 8, 16))",
            "filled(Encoder(config))(0.001 * randn(2, 3, 8, 16))",
            "[name for name, _ in Encoder(config).named_parameters()]"),
    "5.2": ("filled(Decoder(config))(randn(1, 4, 4, 4))",
            "filled(Decoder(config))(randn(2, 4, 2, 4))",
            "filled(Decoder(config))(0.001 * randn(2, 4, 2, 4))",
            "[name for name, _ in Decoder(config).named_parameters()]"),
    "5.3": ("sample_latents(zeros(1, 8, 2, 2), randn(1, 4, 2, 2))",
            "sample_latents(randn(2, 8, 3, 5), randn(2, 4, 3, 5))",
            "sample_latents(100 * randn(1, 8, 2, 2), randn(1, 4, 2, 2))",
            "sample_latents(40 * ones(1, 8, 2, 2), ones(1, 4, 2, 2))",
            "sample_latents(-100 * ones(1, 8, 2, 2), 1e9 * ones(1, 4, 2, 2))"),
    "5.4": ("filled(VAE(config)).decode(randn(1, 4, 4, 4))",
            "filled(VAE(config)).encode(randn(1, 3, 8, 8))",
            "filled(VAE(config)).encode(randn(2, 3, 8, 16), randn(2, 4, 4, 8))",
            "filled(VAE(VAEConfig(channels=(8, 16), blocks_per_level=1, num_groups=4, scaling_factor=3.0)))"
            ".decode(randn(1, 4, 4, 4))",
            "filled(VAE(VAEConfig(channels=(8, 16), blocks_per_level=1, num_groups=4, scaling_factor=3.0)))"
            ".encode(randn(1, 3, 8, 8))"),
    "5.5": ("tensor_to_images(linspace(-1, 1, 12).reshape(1, 3, 2, 2))",
            "tensor_to_images(rand(2, 3, 4, 6) * 2 - 1)",
            "tensor_to_images(3 * randn(1, 3, 4, 6))",
            "tensor_to_images(rand(1, 3, 4, 6) * 2 - 1).is_contiguous()",
            "tensor_to_images((rand(1, 3, 16, 16) * 2 - 1).half())"),
    "6.1": ("tokenizer.bpe('cat')", "tokenizer.bpe('catdog')", "tokenizer.bpe('reread')", "tokenizer.bpe('x')",
            "tokenizer.bpe('don')", "tokenizer.bpe('dogs')", "tokenizer.bpe('cacas')", "tokenizer.bpe('onon')"),
    "6.2": ("tokenizer.tokenize('a cat')", "tokenizer.tokenize('A Cat, on 4k!')", "tokenizer.tokenize('dog  dog')",
            "tokenizer.tokenize('<|endoftext|> cat')", "tokenizer.tokenize('\\u00e9\\u5bb6 #')"),
    "6.3": ("tokenizer(['a cat'])", "tokenizer('dog')", "tokenizer(['a cat', 'dog on a red road'])",
            "tokenizer('dog ' * 30)", "tokenizer([''])", "tokenizer('a cat').dtype"),
    "6.4": ("causal_mask(2)", "causal_mask(5)"),
    "6.5": ("filled(CLIPLayer(config))(randn(1, 4, 12), zeros(4, 4))",
            "filled(CLIPLayer(config))(randn(2, 5, 12), causal_mask(5))",
            "filled(CLIPLayer(config))(0.001 * randn(2, 5, 12), causal_mask(5))",
            "[name for name, _ in CLIPLayer(config).named_parameters()]"),
    "6.6": ("filled(CLIPTextEncoder(config))(tensor([[1, 2, 3]]))",
            "filled(CLIPTextEncoder(config))(tensor([[5, 6, 7, 8, 1, 1], [9, 1, 1, 1, 1, 1]]))",
            "filled(CLIPTextEncoder(config))(arange(16)[None])",
            "filled(CLIPTextEncoder(config))(tensor([[5, 6, 59, 59]]))",
            "[name for name, _ in CLIPTextEncoder(config).named_parameters()]"),
    "7.1": ("timestep_embedding(tensor([0]), 8)", "timestep_embedding(tensor([1, 500]), 8)",
            "timestep_embedding(tensor([999, 3]), 10, max_period=100.0)",
            "timestep_embedding(tensor([999]).half(), 8)", "timestep_embedding(tensor([999.0, 1.5]), 8)"),
    "7.2": ("filled(DownBlock(config, 1))(randn(1, 8, 4, 4), randn(1, 32), randn(1, 5, 6))",
            "filled(DownBlock(config, 0))(randn(2, 8, 4, 6), randn(2, 32), randn(2, 5, 6))",
            "filled(DownBlock(config, 2))(randn(2, 16, 4, 6), randn(2, 32), randn(2, 5, 6))",
            "filled(DownBlock(config, 1))(0.001 * randn(2, 8, 4, 6), randn(2, 32), randn(2, 5, 6))"),
    "7.3": ("filled(UpBlock(config, 2))(randn(1, 16, 2, 2), [randn(1, 16, 2, 2) for _ in range(3)], randn(1, 32),"
            " randn(1, 5, 6))",
            "filled(UpBlock(config, 1))(randn(2, 16, 2, 4), [randn(2, c, 2, 4) for c in (8, 16, 16)], randn(2, 32),"
            " randn(2, 5, 6))",
            "filled(UpBlock(config, 0))(randn(2, 16, 2, 4), [randn(2, c, 2, 4) for c in (8, 8, 8)], randn(2, 32),"
            " randn(2, 5, 6))",
            "filled(UpBlock(config, 1))(0.001 * randn(2, 16, 2, 4), [0.001 * randn(2, c, 2, 4) for c in (8, 16, 16)],"
            " randn(2, 32), randn(2, 5, 6))",
            "skips = [randn(1, c, 2, 2) for c in (7, 8, 16, 16)]; filled(UpBlock(config, 1))(randn(1, 16, 2, 2), skips,"
            " randn(1, 32), randn(1, 5, 6)); len(skips)"),
    "7.4": ("filled(UNet(config))(randn(1, 4, 8, 8), tensor([500]), randn(1, 5, 6))",
            "filled(UNet(config))(randn(2, 4, 8, 4), tensor([500, 3]), randn(2, 5, 6))",
            "filled(UNet(config))(0.001 * randn(2, 4, 8, 4), tensor([500, 3]), randn(2, 5, 6))"),
    "8.1": ("scaled_linear_betas()", "scaled_linear_betas(4, 0.01, 0.09)", "scaled_linear_betas(1000, 0.001, 0.2)"),
    "8.2": ("alphas_cumprod(tensor([0.5, 0.5, 0.5]))", "alphas_cumprod(linspace(0.1, 0.5, 5))"),
    "8.3": ("schedule.add_noise(randn(1, 4, 2, 2), randn(1, 4, 2, 2), tensor([500]))",
            "schedule.add_noise(ones(1, 1, 1, 1), zeros(1, 1, 1, 1), tensor([999]))",
            "schedule.add_noise(randn(2, 4, 2, 2), randn(2, 4, 2, 2), tensor([0, 999]))",
            "schedule.add_noise(randn(2, 4, 2, 2).float(), randn(2, 4, 2, 2).float(), tensor([0, 999]))",
            "schedule.add_noise(randn(2, 4, 2, 2).half(), randn(2, 4, 2, 2).half(), tensor([0, 999]))"),
    "8.4": ("schedule.predict_original(randn(1, 4, 2, 2), randn(1, 4, 2, 2), 500)",
            "schedule.predict_original(randn(1, 4, 2, 2), randn(1, 4, 2, 2), 999)",
            "schedule.predict_original(ones(1, 1, 1, 1), zeros(1, 1, 1, 1), 0)"),
    "8.5": ("schedule.inference_timesteps(10)", "schedule.inference_timesteps(7)",
            "schedule.inference_timesteps(10, 11)", "schedule.inference_timesteps(1)",
            "NoiseSchedule(100).inference_timesteps(10)"),
    "8.6": ("ddim_step(schedule, randn(1, 4, 2, 2), randn(1, 4, 2, 2), 500, 400)",
            "ddim_step(schedule, randn(1, 4, 2, 2), randn(1, 4, 2, 2), 1, -1)",
            "ddim_step(schedule, randn(1, 4, 2, 2), randn(1, 4, 2, 2), 500, 400, 1.0, randn(1, 4, 2, 2))",
            "ddim_step(schedule, randn(1, 4, 2, 2), randn(1, 4, 2, 2), 500, 400, 0.5, randn(1, 4, 2, 2))"),
    "8.7": ("ddpm_step(schedule, randn(1, 4, 2, 2), randn(1, 4, 2, 2), 500, 400, randn(1, 4, 2, 2))",
            "ddpm_step(schedule, randn(1, 4, 2, 2), randn(1, 4, 2, 2), 1, -1, randn(1, 4, 2, 2))"),
    "8.8": ("euler_step(schedule, randn(1, 4, 2, 2), randn(1, 4, 2, 2), 500, 400)",
            "euler_step(schedule, randn(1, 4, 2, 2), randn(1, 4, 2, 2), 1, -1)"),
    "8.9": ("dpm_solver_2m_step(schedule, randn(1, 4, 2, 2), randn(1, 4, 2, 2), 500, 400)",
            "dpm_solver_2m_step(schedule, randn(1, 4, 2, 2), randn(1, 4, 2, 2), 500, 400, 650, randn(1, 4, 2, 2))",
            "dpm_solver_2m_step(schedule, randn(1, 4, 2, 2), randn(1, 4, 2, 2), 20, -1, 400, randn(1, 4, 2, 2))"),
    "9.1": ("classifier_free_guidance(tensor([0.0, 1.0]), tensor([1.0, 1.0]), 7.5)",
            "classifier_free_guidance(randn(2, 4, 2, 2), randn(2, 4, 2, 2), 3.0)",
            "classifier_free_guidance(randn(2, 4, 2, 2), randn(2, 4, 2, 2), 1.0)"),
    "9.2": ("predict_noise(unet, randn(1, 4, 2, 2), 500, randn(1, 5, 6), None, 7.5)",
            "predict_noise(unet, randn(1, 4, 2, 2), 500, randn(1, 5, 6), randn(1, 5, 6), 7.5)",
            "predict_noise(unet, randn(2, 4, 2, 2), 500, randn(2, 5, 6), randn(2, 5, 6), 2.0)",
            "predict_noise(unet, randn(2, 4, 2, 2).float(), 500, randn(2, 5, 6), randn(2, 5, 6), 2.0).dtype"),
    "9.3": ("[step.latents for step in denoise(model, randn(1, 4, 2, 2), [700, 400, 100], randn(1, 5, 12))]",
            "[(step.index, step.count, step.timestep) for step in denoise(model, randn(1, 4, 2, 2), [700, 400, 100],"
            " randn(1, 5, 12))]",
            "[step.original for step in denoise(model, randn(1, 4, 2, 2), [700, 400], randn(1, 5, 12),"
            " randn(1, 5, 12), Sampling(guidance_scale=2.0))]",
            "[step.latents for step in denoise(model, randn(1, 4, 2, 2), [700, 400, 100], randn(1, 5, 12),"
            " sampling=Sampling(sampler='ddpm'))]",
            "[step.latents for step in denoise(model, randn(1, 4, 2, 2), [700, 400, 100], randn(1, 5, 12),"
            " sampling=Sampling(sampler='euler'))]",
            "[step.latents for step in denoise(model, randn(1, 4, 2, 2), [700, 500, 100, 50], randn(1, 5, 12),"
            " sampling=Sampling(sampler='dpm++2m'))]",
            "[step.latents for step in denoise(model, randn(1, 4, 2, 2), [700, 400], randn(1, 5, 12),"
            " after_step=lambda latents, t: latents + t)]",
            "list(denoise(model, randn(1, 4, 2, 2), [700], randn(1, 5, 12), sampling=Sampling(sampler='plms')))"),
    "9.4": ("text_to_image(model, ['a cat'], [''], randn(1, 4, 2, 2), Sampling(2, 3.0))",
            "text_to_image(model, ['a cat', 'dog'], ['dog', ''], randn(2, 4, 2, 2), Sampling(3, 1.0))",
            "text_to_image(model, ['a cat'], ['dog'], randn(1, 4, 2, 2), Sampling(3, 2.0, 'dpm++2m'))",
            "text_to_image(model, ['a cat'], ['dog'], randn(1, 4, 2, 2), Sampling(3, 2.0, 'ddpm'))",
            "seen = []; text_to_image(model, ['a cat'], [''], randn(1, 4, 2, 2), Sampling(2), seen.append); len(seen)"),
    "9.5": ("image_to_image(model, randn(1, 3, 4, 4), ['a cat'], [''], randn(1, 4, 2, 2), 0.5, Sampling(4, 3.0))",
            "image_to_image(model, randn(1, 3, 4, 8), ['a cat'], ['dog'], randn(1, 4, 2, 4), 0.75,"
            " Sampling(4, 2.0, 'dpm++2m'))",
            "image_to_image(model, randn(1, 3, 4, 4), ['a cat'], [''], randn(1, 4, 2, 2), 0.5, Sampling(4, 3.0),"
            " encoder_noise=randn(1, 4, 2, 2))"),
    "9.6": ("inpaint(model, randn(1, 3, 4, 4), ones(1, 1, 4, 4), ['a cat'], [''], randn(1, 4, 2, 2),"
            " sampling=Sampling(3, 3.0))",
            "inpaint(model, randn(1, 3, 4, 4), zeros(1, 1, 4, 4), ['a cat'], [''], randn(1, 4, 2, 2),"
            " sampling=Sampling(3, 3.0))",
            "inpaint(model, randn(1, 3, 4, 4), (rand(1, 1, 4, 4) > 0.5).double(), ['a cat'], [''], randn(1, 4, 2, 2),"
            " 0.5, Sampling(4, 3.0), encoder_noise=randn(1, 4, 2, 2))"),
    "10.1": ("select_ema({'model.diffusion_model.out.0.weight': 1, 'model_ema.diffusion_modelout0weight': 2})",
             "select_ema({'model.diffusion_model.out.0.weight': 1, 'first_stage_model.a.b': 3,"
             " 'model_ema.diffusion_modelout0weight': 2, 'model_ema.decay': 4})",
             "select_ema({'model.diffusion_model.out.0.weight': 1})",
             "given = {'model.diffusion_model.a.b': 1, 'model_ema.diffusion_modelab': 2}; select_ema(given); given"),
    "10.2": ("list(remap_vae({f'decoder.up.{i}.block.0.conv1.bias': zeros(1) for i in range(4)}))",
             "list(remap_vae({f'{name}.bias': zeros(1) for name in ('decoder.up.3.upsample.conv',"
             " 'decoder.up.1.upsample.conv', 'decoder.up.1.block.2.norm2', 'encoder.down.0.downsample.conv',"
             " 'encoder.down.2.block.1.nin_shortcut', 'encoder.down.1.block.0.conv2')}))",
             "list(remap_vae({f'{name}.bias': zeros(1) for name in ('decoder.up.3.block.0.norm1', 'quant_conv',"
             " 'post_quant_conv', 'encoder.mid.block_1.norm1', 'encoder.mid.block_2.conv1', 'decoder.mid.attn_1.q',"
             " 'decoder.mid.attn_1.v', 'decoder.mid.attn_1.norm', 'decoder.mid.block_1.conv2')}))",
             "remap_vae({'decoder.up.1.block.0.conv1.bias': zeros(1), 'encoder.mid.attn_1.k.weight': randn(3, 3, 1, 1),"
             " 'encoder.conv_in.weight': randn(3, 3, 1, 1), 'encoder.mid.attn_1.k.bias': randn(3)})",
             "remap_vae({'decoder.up.0.block.0.conv1.bias': zeros(1), 'encoder.cellar.weight': zeros(1)})"),
    "10.3": ("list(remap_unet({f'input_blocks.{name}': zeros(1) for name in ('3.0.op.bias', '1.0.in_layers.0.bias',"
             " '4.0.in_layers.2.bias', '5.1.proj_in.bias')}))",
             "list(remap_unet({f'{name}.bias': zeros(1) for name in ('input_blocks.3.0.op', 'input_blocks.6.0.op',"
             " 'output_blocks.2.1.conv', 'output_blocks.5.2.conv', 'output_blocks.3.0.out_layers.3',"
             " 'output_blocks.4.1.norm', 'middle_block.0.emb_layers.1', 'middle_block.1.proj_out',"
             " 'middle_block.2.out_layers.0', 'time_embed.0', 'time_embed.2', 'out.0', 'out.2', 'input_blocks.0.0')}))",
             "list(remap_unet({f'input_blocks.{name}': zeros(1) for name in ('2.0.op.bias',"
             " '1.1.transformer_blocks.0.attn1.to_q.weight', '1.1.transformer_blocks.0.attn2.to_out.0.bias',"
             " '1.1.transformer_blocks.0.ff.net.0.proj.bias', '1.1.transformer_blocks.0.ff.net.2.bias',"
             " '1.1.transformer_blocks.0.norm3.bias', '3.0.skip_connection.bias', '3.0.emb_layers.1.bias')}))",
             "remap_unet({'input_blocks.3.0.op.bias': zeros(1), 'cellar.weight': zeros(1)})"),
    "10.4": ("layer = nn.Linear(2, 2); load_weights(layer, {'weight': ones(2, 2), 'bias': zeros(2)}); layer.weight",
             "load_weights(nn.Linear(2, 2), {'weight': ones(2, 2)})",
             "load_weights(nn.Linear(2, 2), {'weight': ones(2, 2), 'bias': zeros(2), 'more': zeros(2)})",
             "load_weights(nn.Linear(2, 2), {'weight': ones(2, 3), 'bias': zeros(2)})",
             "load_weights(nn.Linear(2, 2), {'weight': ones(4), 'bias': zeros(2)})",
             "layer = nn.Linear(2, 2); load_weights(layer, {'weight': ones(2, 2).half(), 'bias': zeros(2).half()});"
             " layer.weight.dtype"),
    "11.1": ("kl_divergence(zeros(1, 8, 2, 2))",
             "kl_divergence(randn(2, 8, 3, 5))",
             "kl_divergence(100 * randn(1, 8, 2, 2))"),
    "11.2": ("vae_loss(randn(1, 3, 8, 8), zeros(1, 3, 8, 8), zeros(1, 8, 1, 1))",
             "vae_loss(ones(1, 3, 8, 8), zeros(1, 3, 8, 8), zeros(1, 8, 1, 1))",
             "vae_loss(randn(2, 3, 8, 16), randn(2, 3, 8, 16), randn(2, 8, 1, 2), 0.5, 0.1)",
             "vae_loss(zeros(1, 3, 8, 8), zeros(1, 3, 8, 8), randn(1, 8, 1, 1))",
             "x = ones(1, 3, 8, 8, requires_grad=True);"
             " vae_loss(x, zeros(1, 3, 8, 8), zeros(1, 8, 1, 1)).backward(); x.grad"),
    "11.3": ("contrastive_loss(torch.eye(3), torch.eye(3), 5.0)",
             "contrastive_loss(randn(4, 6), randn(4, 6), 5.0)",
             "contrastive_loss(randn(5, 6), randn(3, 6), 2.0)",
             "contrastive_loss(3 * torch.eye(3), torch.eye(3), 5.0)"),
    "11.4": ("spread_timesteps(0.5 * ones(4))", "spread_timesteps(rand(10))", "spread_timesteps(rand(7), 100)",
             "spread_timesteps((1 - 1e-7) * ones(1000).float())"),
    "11.5": ("drop_captions(['a', 'b', 'c'], tensor([0.05, 0.5, 0.95]))",
             "drop_captions(['a', 'b', 'c'], tensor([0.05, 0.5, 0.95]), 0.5)",
             "drop_captions(['a', 'b'], tensor([0.0, 0.999]), 0.0)", "drop_captions(['a', 'b'], rand(2), 1.0)",
             "given = ['a', 'b']; drop_captions(given, zeros(2)); given"),
    "11.6": ("min_snr_weights(schedule, tensor([0, 100, 500, 999]))",
             "min_snr_weights(schedule, tensor([0, 100, 500, 999]), 1.0)",
             "min_snr_weights(NoiseSchedule(10, 0.1, 0.2), tensor([9, 0]))"),
    "11.7": ("noise_loss(unet, schedule, randn(1, 4, 2, 2), randn(1, 4, 2, 2), tensor([500]), randn(1, 5, 6))",
             "noise_loss(unet, schedule, randn(3, 4, 2, 4), randn(3, 4, 2, 4), tensor([3, 900, 40]), randn(3, 5, 6))",
             "noise_loss(unet, schedule, randn(2, 4, 2, 2), randn(2, 4, 2, 2), tensor([3, 900]), randn(2, 5, 6), 1.0)"),
    "11.8": ("ema_decay(1)", "ema_decay(10)", "ema_decay(10, 1.0, 2.0)", "ema_decay(10**9)",
             "ema_decay(10**9, max_decay=0.5)"),
    "11.9": ("a, b = filled(nn.Linear(2, 2)), filled(nn.Linear(2, 2)); b.weight.mul_(3);"
             " update_average(a, b, 0.9); a.weight",
             "a, b = filled(nn.Linear(2, 2)), filled(nn.Linear(2, 2)); b.bias.add_(1); update_average(a, b, 0.5);"
             " a.bias",
             "a, b = filled(nn.Linear(2, 2)), filled(nn.Linear(2, 2)); b.weight.mul_(3); update_average(a, b, 0.9);"
             " b.weight",
             "a, b = filled(nn.Linear(2, 2)), filled(nn.Linear(2, 2)); b.weight.mul_(3); update_average(a, b, 0.0);"
             " a.weight"),
    "11.10": ("m = filled(nn.Linear(2, 1)).requires_grad_(True); o = torch.optim.SGD(m.parameters(), 0.1);"
              " training_step(m, o, lambda n: n(ones(1, 2)).square().sum()); m.weight",
              "m = filled(nn.Linear(2, 1)).requires_grad_(True); o = torch.optim.SGD(m.parameters(), 0.1);"
              " training_step(m, o, lambda n: n(ones(1, 2)).square().sum())",
              "m = filled(nn.Linear(2, 1)).requires_grad_(True); o = torch.optim.SGD(m.parameters(), 0.1);"
              " [training_step(m, o, lambda n: n(ones(1, 2)).square().sum()) for _ in range(2)]; m.weight",
              "m = filled(nn.Linear(2, 1)).requires_grad_(True); o = torch.optim.SGD(m.parameters(), 0.1);"
              " training_step(m, o, lambda n: 9 * n(ones(1, 2)).square().sum(), 0.5); m.weight",
              "m = filled(nn.Linear(2, 1)).requires_grad_(True); a = filled(nn.Linear(2, 1));"
              " o = torch.optim.SGD(m.parameters(), 0.1);"
              " training_step(m, o, lambda n: n(ones(1, 2)).square().sum(), 1.0, a, 0.5); a.weight"),
    "12.1": ("filled(LoRA(nn.Linear(4, 3), 2))(randn(1, 4))",
             "filled(LoRA(nn.Linear(4, 3), 2, 6.0))(randn(2, 4))",
             "filled(LoRA(nn.Linear(6, 3), 4, 1))(randn(2, 6))",
             "filled(LoRA(nn.Conv2d(3, 5, 3, stride=2, padding=1), 2))(randn(1, 3, 6, 8))",
             "layer = filled(LoRA(nn.Linear(4, 3), 2)); layer.merged = True; layer(randn(1, 4))",
             "filled(LoRA(LoRA(nn.Linear(4, 3), 2), 2))(randn(1, 4))",
             "LoRA(nn.Linear(4, 3), 2).up.weight",
             "LoRA(nn.Linear(4, 3), 2).down.weight.abs().sum() > 0",
             "LoRA(nn.Linear(4, 3), 2).scale",
             "[(name, p.requires_grad) for name, p in LoRA(nn.Linear(4, 3), 2).named_parameters()]",
             "[(name, tuple(p.shape)) for name, p in LoRA(nn.Linear(4, 3), 2).named_parameters()]",
             "[(name, tuple(p.shape)) for name, p in LoRA(nn.Conv2d(3, 5, 3, padding=1), 2).named_parameters()]",
             "LoRA(nn.Linear(4, 3).half(), 2).down.weight.dtype",
             "layer = nn.Linear(4, 3); LoRA(layer, 2).layer is layer"),
    "12.2": ("filled(LoRA(nn.Linear(4, 3), 2)).delta()",
             "filled(LoRA(nn.Linear(4, 4), 2, 6.0)).delta()",
             "filled(LoRA(nn.Conv2d(3, 5, 3), 2)).delta()",
             "filled(LoRA(nn.Linear(4, 3).half(), 2)).delta()",
             "filled(LoRA(LoRA(nn.Linear(4, 3), 2), 2)).delta()"),
    "12.3": ("layer = filled(LoRA(nn.Linear(4, 3), 2)); layer.merge(); layer.weight",
             "layer = filled(LoRA(nn.Linear(4, 3), 2)); layer.merge(); layer.merge(); layer.weight",
             "layer = filled(LoRA(nn.Linear(4, 3), 2)); layer.merge(); layer(randn(1, 4))",
             "layer = filled(LoRA(nn.Linear(4, 3), 2)); layer.unmerge(); layer.weight",
             "layer = filled(LoRA(nn.Linear(4, 3), 2)); layer.merge(); layer.unmerge(); layer.weight",
             "layer = filled(LoRA(nn.Linear(4, 3), 2)); layer.merge(); layer.unmerge(); layer(randn(1, 4))",
             "layer = filled(LoRA(LoRA(nn.Linear(4, 3), 2), 2)); layer.merge(); layer.weight",
             "layer = filled(LoRA(nn.Linear(64, 64).bfloat16(), 2)); layer.merge(); layer.weight"),
    "12.4": ("net = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3)); put_in(net, ['1'], 2);"
             " [(name, p.requires_grad) for name, p in net.named_parameters()]",
             "[tuple(p.shape) for p in put_in(nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3)), ['0', '1'], 2)]",
             "net = nn.Sequential(nn.Linear(4, 3)); put_in(net, ['0'], 2, 6.0); net[0].scale",
             "net = nn.Sequential(nn.Linear(4, 3)); put_in(net, ['0'], 2); filled(net)(randn(1, 4))"),
    "12.5": ("net = nn.Sequential(nn.Linear(4, 3)); put_in(net, ['0'], 2); take_out(net);"
             " [name for name, _ in net.named_parameters()]",
             "net = nn.Sequential(LoRA(LoRA(nn.Linear(4, 3), 2), 2)); take_out(net);"
             " [name for name, _ in net.named_parameters()]",
             "net = filled(nn.Sequential(LoRA(nn.Linear(4, 3), 2))); take_out(net); net[0].weight",
             "net = filled(nn.Sequential(LoRA(nn.Linear(4, 3), 2))); net[0].merge(); take_out(net); net[0].weight"),
    "12.6": ("table_of_layers(nn.ModuleDict({'conv_in': nn.Linear(2, 2)}), nn.ModuleDict())",
             "table_of_layers(nn.ModuleDict(), nn.ModuleDict({'layers': nn.ModuleList([nn.ModuleDict({'fc1':"
             " nn.Linear(2, 2)})])}))",
             "table_of_layers(unet, text_encoder).get('lora_unet_mid_block_attentions_0_proj_in')",
             "len(table_of_layers(unet, text_encoder))"),
    "12.7": ("[update.alpha for update in read_lora(file, unet, text_encoder).values()]",
             "[update.down for update in read_lora(file, unet, text_encoder).values()]",
             "[update.up for update in read_lora(file, unet, text_encoder).values()]",
             "list(read_lora(file, unet, text_encoder))",
             "read_lora(file | {'lora_unet_cellar.alpha': tensor(1.0)}, unet, text_encoder)",
             "read_lora({name: t for name, t in file.items() if 'up' not in name}, unet, text_encoder)",
             "read_lora({name: t[:, :1] if 'down' in name else t for name, t in file.items()}, unet, text_encoder)",
             "read_lora({name: t[:5] if 'up' in name else t for name, t in file.items()}, unet, text_encoder)",
             "len(read_lora({'lora_unet_conv_in.lora_down.weight': randn(3, 36),"
             " 'lora_unet_conv_in.lora_up.weight': randn(8, 3)}, unet, text_encoder))"),
    "12.8": ("apply_lora(unet, text_encoder, read_lora(file, unet, text_encoder)); text_encoder(tensor([[3, 1, 4]]))",
             "apply_lora(unet, text_encoder, read_lora(file, unet, text_encoder), 0.5);"
             " unet(randn(1, 4, 4, 4), tensor([500]), randn(1, 5, 12))",
             "[lora.scale for lora in apply_lora(unet, text_encoder, read_lora(file, unet, text_encoder), 0.5)]",
             "[lora.down.weight for lora in apply_lora(unet, text_encoder, read_lora(file, unet, text_encoder))]",
             "[lora.up.weight for lora in apply_lora(unet, text_encoder, read_lora(file, unet, text_encoder))]",
             "[apply_lora(unet, text_encoder, read_lora(file, unet, text_encoder)) and None for _ in range(2)];"
             " text_encoder(tensor([[3, 1, 4]]))"),
    "12.9": ("new, old = (Batch(randn(1, 4, 2, 2), randn(1, 4, 2, 2), tensor([t]), randn(1, 5, 12)) for t in (500, 9));"
             " tuning_loss(unet, schedule, new, old)",
             "new, old = (Batch(randn(1, 4, 2, 2), randn(1, 4, 2, 2), tensor([t]), randn(1, 5, 12)) for t in (500, 9));"
             " tuning_loss(unet, schedule, new, old, 0.5)",
             "new, old = (Batch(randn(1, 4, 2, 2), randn(1, 4, 2, 2), tensor([t]), randn(1, 5, 12)) for t in (500, 9));"
             " tuning_loss(unet, schedule, new, old, 0.0)"),
    "13.1": ("frame_positions(2, 4)", "frame_positions(3, 6)", "frame_positions(2, 4, 100.0)",
             "frame_positions(2, 4).dtype"),
    "13.2": ("filled(MotionBlock(8, 2))(randn(1, 4, 8))",
             "filled(MotionBlock(8, 2))(randn(3, 5, 8))",
             "filled(MotionBlock(8, 2))(0.001 * randn(3, 5, 8))",
             "filled(MotionBlock(8, 2)).float()(randn(1, 4, 8).float()).dtype",
             "[name for name, _ in MotionBlock(8, 2).named_parameters()]"),
    "13.3": ("filled(MotionModule(8, 2, 4))(randn(3, 8, 2, 2), 3)",
             "filled(MotionModule(8, 2, 4))(randn(6, 8, 2, 3), 3)",
             "filled(MotionModule(8, 2, 4))(0.001 * randn(6, 8, 2, 3), 3)",
             "filled(MotionModule(64, 2))(randn(2, 64, 2, 2), 2)",
             "MotionModule(8, 2, 4)(randn(2, 8, 2, 2), 2)",
             "[(name, bool(p.any())) for name, p in MotionModule(8, 2, 4).named_parameters() if name[:4] == 'proj']",
             "[name for name, _ in MotionModule(8, 2, 4).named_parameters()]"),
    "13.4": ("unet(randn(3, 4, 4, 4), tensor([500] * 3), randn(3, 5, 12), 3)",
             "unet(randn(4, 4, 4, 8), tensor([500] * 4), randn(4, 5, 12), 2)",
             "unet(randn(5, 4, 2, 2), tensor([500] * 5), randn(5, 5, 12), 5)",
             "unet(randn(4, 4, 2, 2), tensor([500] * 4), randn(4, 5, 12), 4)"),
    "13.5": ("text_to_video(model, ['a cat'], [''], randn(1, 3, 4, 2, 2), Sampling(2, 3.0))",
             "text_to_video(model, ['a cat', 'dog'], ['', 'dog'], randn(2, 3, 4, 2, 2), Sampling(2, 3.0))",
             "text_to_video(model, ['a cat', 'dog'], ['', ''], randn(2, 2, 4, 2, 2), Sampling(2, 1.0)).shape",
             "seen = []; text_to_video(model, ['a cat'], [''], randn(1, 2, 4, 2, 2), Sampling(2), seen.append);"
             " len(seen)",
             "text_to_video(model, ['a cat'], [''], randn(1, 2, 4, 2, 2), Sampling(1)); type(model.unet).__name__"),
    "13.6": ("list(remap_motion({f'down_blocks.1.motion_modules.0.{name}': zeros(1) for name in ('norm.weight',"
             " 'transformer_blocks.0.attn1.to_q.weight', 'transformer_blocks.0.attn2.to_out.0.bias',"
             " 'transformer_blocks.0.ff.net.2.bias', 'transformer_blocks.0.norm3.weight')}))",
             "list(remap_motion({f'module.mid_block.motion_modules.0.temporal_transformer.{name}': zeros(1) for name in"
             " ('proj_in.bias', 'transformer_blocks.0.attention_blocks.0.to_k.weight',"
             " 'transformer_blocks.0.attention_blocks.1.to_v.weight', 'transformer_blocks.0.norms.0.bias',"
             " 'transformer_blocks.0.ff_norm.bias')}))",
             "list(remap_motion({f'up_blocks.0.motion_modules.2.{name}': zeros(1) for name in ('proj_out.bias',"
             " 'transformer_blocks.0.pos_encoder.pe')}))",
             "remap_motion({'down_blocks.0.cellar.weight': zeros(1)})",
             "remap_motion({'down_blocks.0.motion_modules.0.cellar.norm.weight': zeros(1)})"),
}
# fmt: on

GIVEN = {
    5: "config, a small VAEConfig",
    6: "config, a small CLIPConfig, and tokenizer, a Tokenizer with seven merges",
    7: "config, a small UNetConfig",
    8: "schedule, a NoiseSchedule",
    9: "unet, a function in place of a network, and model, a small StableDiffusion",
    11: "schedule, a NoiseSchedule, and unet, a function in place of a network",
    12: "unet and text_encoder, small networks, file, the tensors of a small LoRA file for them, and schedule, a "
    "NoiseSchedule",
    13: "unet, a small MotionUNet for films of 4 frames at most, and model, a small StableDiffusion with it",
}
MERGES = [
    ("o", "n</w>"), ("d", "o"), ("c", "a"), ("ca", "t</w>"), ("do", "g</w>"), ("r", "e"), ("o", "g")
]  # fmt: skip


def given(number: int, names: Mapping[str, Any], code: str) -> dict[str, Any]:
    """What GIVEN promises for a stage.

    Args:
        names: of this stage and those before it, and `filled`.
        code: what is to be run. Networks, which take a moment, are made only if this text names them.
    """
    if number not in GIVEN:
        return {}

    def unet(latents, timesteps, context):
        return latents * context.mean((1, 2))[:, None, None, None] + timesteps[:, None, None, None] / 1000

    if number == 11:
        return {"schedule": names["NoiseSchedule"](), "unet": unet}
    vae = names["VAEConfig"](channels=(8, 16), blocks_per_level=1, num_groups=4)
    if number == 5:
        return {"config": vae}
    letters = [*string.ascii_lowercase, *(letter + "</w>" for letter in string.ascii_lowercase)]
    vocab = {token: i for i, token in enumerate([*letters, *map("".join, MERGES), "<|startoftext|>", "<|endoftext|>"])}
    tokenizer = names["Tokenizer"](vocab, MERGES, max_length=16)
    clip = names["CLIPConfig"](len(vocab), width=12, hidden_width=20, num_layers=2, num_heads=2, max_length=16)
    if number == 6:
        return {"config": clip, "tokenizer": tokenizer}
    sizes = {"blocks_per_level": 2, "num_heads": 2, "num_groups": 4}
    if number == 7:
        levels = {"channels": (8, 16, 16), "attention": (True, True, False), "context_channels": 6}
        return {"config": names["UNetConfig"](**levels, **sizes)}
    schedule = names["NoiseSchedule"]()
    if number == 8:
        return {"schedule": schedule}
    needed = {9: ("model",), 12: ("unet", "text_encoder", "file"), 13: ("unet", "model")}[number]
    if not any(name in code for name in needed):
        return {"unet": unet} if number == 9 else {"schedule": schedule}
    filled, levels = names["filled"], {"channels": (8, 16), "attention": (True, False), "context_channels": 12}
    small = filled(names["UNet"](names["UNetConfig"](**levels, **sizes)))
    encoder = filled(names["CLIPTextEncoder"](clip))
    if number == 12:
        return {"unet": small, "text_encoder": encoder, "file": lora_file(), "schedule": schedule}
    if number == 13:
        motion = names["MotionConfig"](num_heads=2, max_frames=4)
        small = filled(names["MotionUNet"](small, names["UNetConfig"](**levels, **sizes), motion))
    model = names["StableDiffusion"](tokenizer, encoder, small, filled(names["VAE"](vae)), schedule)
    return {"unet": unet if number == 9 else small, "model": model}


def lora_file() -> dict[str, Any]:
    """Of three layers, in both ways of writing; two with an alpha."""
    import torch

    shapes = {
        "lora_te_text_model_encoder_layers_0_mlp_fc1": ((2, 12), (20, 2), 1.0),
        "lora_unet_conv_in": ((3, 4, 3, 3), (8, 3, 1, 1), 6.0),
        "unet.time_embedding.linear_1": ((4, 8), (32, 4), None),
    }
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for name, (down, up, alpha) in shapes.items():
        ends = ("lora_A", "lora_B") if "." in name else ("lora_down", "lora_up")
        for end, shape in zip(ends, (down, up), strict=True):
            tensors[f"{name}.{end}.weight"] = torch.randn(shape, generator=generator, dtype=torch.float64)
        if alpha is not None:
            tensors[f"{name}.alpha"] = torch.tensor(alpha)
    return tensors
